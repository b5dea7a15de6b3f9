//! `farseek demo`.
use crate::app::App;
use anyhow::{Result, bail};
use clap::Args;
/// `farseek demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {}
/// Not there yet.
pub(crate) async fn run(_args: DemoArgs, _app: &mut App) -> Result<()> {
    bail!("not built yet")
}
