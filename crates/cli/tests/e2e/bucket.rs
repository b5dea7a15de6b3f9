//! Buckets: pushed to, mounted from and looked after, through real servers of three clouds.

mod clouds;
mod killed;
mod ended;
mod mounted;
mod refused;
mod requests;
mod secrets;
mod site;
pub(crate) mod stand;
mod together;
