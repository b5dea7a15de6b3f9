//! Buckets: pushed to, mounted from and looked after, through a real S3 server.

mod killed;
mod mounted;
mod refused;
mod requests;
mod secrets;
mod site;
pub(crate) mod stand;
mod together;
