//! Repositories: where objects, payloads and tags are kept, near or far.
//!
//! [`Repository`] is the one trait; [`FsRepository`], [`HttpRepository`], [`MemoryRepository`],
//! [`TarRepository`] and [`Chain`] implement it; [`Pinned`] shows one at a moment. Above them stands
//! work on whole graphs: [`commit_directory`].
//! Deliberately absent: caches of payload bytes, FUSE, configuration.

mod error;
mod payload;
mod repository;
mod ext;
mod blocking;
mod retry;
mod http;
mod server;
mod rules;
mod memory;
mod fs;
mod tar;
mod chain;
mod pinned;
mod commit;
mod location;

pub use self::tar::{TarOptions, TarRepository};
pub use chain::{Chain, ChainOptions};
pub use commit::{CommitOptions, CommitProgress, CommitSummary, commit_directory};
pub use error::{Result, Source, StoreError};
pub use ext::RepositoryExt;
pub use fs::{FsOptions, FsRepository};
pub use http::{HttpOptions, HttpRepository};
pub use location::{Location, OpenOptions, open};
pub use memory::MemoryRepository;
pub use payload::{Body, Payload, PutOptions};
pub use pinned::Pinned;
pub use repository::{Repository, TagEntry};
pub use retry::{Backoff, STALL_MAX};
pub use server::{ServeOptions, Server, ServerStats};
