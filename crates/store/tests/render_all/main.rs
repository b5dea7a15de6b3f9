//! Renders: into directories of somebody's, and into the store of renders.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clean;
mod directory;
mod fixtures;
mod killed;
mod planted;
mod renders;
mod site;
