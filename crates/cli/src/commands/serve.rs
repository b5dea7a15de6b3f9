//! `farseek serve`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_store::{ServeOptions, Server};

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;
use crate::output::note;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  farseek serve                                  # the local repository, for this machine alone
  farseek serve 0.0.0.0:7787 --remote /srv/repo  # that repository, for everyone who can connect
  farseek mount --no-local -r http://127.0.0.1:7787/ tools/python /mnt/python

There is no encryption and no password: put it behind a web server that has them, or copy the
repository's directory to any web server, which does as well.";

/// `farseek serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:7787")]
    address: String,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// Serves until it is interrupted.
pub(crate) async fn run(args: ServeArgs, app: &mut App) -> Result<()> {
    let address = resolve(&args.address).await?;
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    if !address.ip().is_loopback() {
        note(format_args!(
            "warning: {address} is not loopback: whoever can connect can read the repository"
        ));
    }
    let mut signals = Signals::listen()?;
    let location = repository.location().to_owned();
    let mut server = Server::bind(repository, address, ServeOptions::default()).await?;
    app.output
        .line(format_args!("serving {location} at {}", server.url()))?;
    app.output.finish()?;
    signals.next().await;
    server.shutdown();
    tokio::select! {
        () = server.wait() => {}
        () = signals.next() => {}
    }
    Ok(())
}

/// The address that a person means.
pub(super) async fn resolve(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let invalid = || format!("'{text}' is not an address: write HOST:PORT, such as 127.0.0.1:7787");
    if !text.contains(':') {
        return Err(Failure::usage(invalid()));
    }
    let mut found = tokio::net::lookup_host(text).await.with_context(invalid)?;
    found.next().with_context(invalid)
}
