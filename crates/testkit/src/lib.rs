//! What tests need and nothing ships: a faulty static HTTP server, a proxy that delays, a client
//! as SPFS's is, guards, the oracle differ.

mod seed;
mod need;
mod raw;
mod child;
mod reader;
pub mod mount;
pub mod handmade;
pub mod tree;
pub mod oracle;
mod server;
mod delay;
pub mod stock_client;

pub use child::{ChildGuard, output_within, wait_until, was_killed};
pub use delay::DelayProxy;
pub use need::{Need, find_program, need};
pub use reader::{ReadKind, Reader, read_once, reader};
pub use seed::Random;
pub use server::{Fault, Request, Rule, StaticServer};
