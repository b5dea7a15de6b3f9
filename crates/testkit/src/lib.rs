//! What tests need and nothing ships: a faulty static HTTP server, a server and a client as SPFS
//! has them, faulty buckets, a proxy that delays, guards, the oracle differ.

mod seed;
mod need;
mod raw;
mod log;
mod child;
mod reader;
pub mod mount;
pub mod handmade;
pub mod tree;
pub mod oracle;
mod server;
mod stock;
mod azurite;
mod bucket;
mod moto;
mod delay;
pub mod stock_client;

pub use azurite::AZURITE;
pub use bucket::{BucketFault, BucketRequest, BucketRule, BucketServer, Cloud};
pub use child::{ChildGuard, output_within, wait_until, was_killed};
pub use delay::DelayProxy;
pub use moto::{MOTO, MotoServer};
pub use need::{Need, find_program, need};
pub use reader::{ReadKind, Reader, read_once, reader};
pub use seed::Random;
pub use server::{Fault, Request, Rule, StaticServer};
pub use stock::{Recorded, StockFault, StockRequest, StockServer};
