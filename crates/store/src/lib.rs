//! Repositories: where objects, payloads and tags are kept, near or far.
//!
//! [`Repository`] is the one trait; [`FsRepository`], [`HttpRepository`], [`GrpcRepository`],
//! [`BucketRepository`], [`MemoryRepository`], [`TarRepository`] and [`Chain`] implement it; [`Pinned`]
//! shows one at a moment. Above them stands work on whole graphs: [`commit_directory`], [`copy()`],
//! [`check()`], [`plan_clean`] and [`render_directory`].
//! Deliberately absent: caches of payload bytes, FUSE, configuration.

mod error;
mod payload;
mod bulk;
mod progress;
mod upkeep;
mod requests;
mod repository;
mod ext;
mod blocking;
mod task;
mod retry;
mod liveness;
mod boot_instant;
mod lingering;
mod process;
mod http;
mod rules;
mod whole;
mod bucket;
mod grpc;
mod server;
mod memory;
mod fs;
mod tar;
mod chain;
mod pinned;
mod commit;
mod copy;
mod check;
mod clean;
mod render;
mod location;

pub use self::tar::{TarOptions, TarRepository};
pub use bucket::{BucketEnvironment, BucketRepository, Secret};
pub use bulk::{BlobState, Bulk, SmallPayload};
pub use chain::{Chain, ChainOptions};
pub use check::{CheckOptions, CheckReport, Damage, Problem, Subject, check};
pub use clean::{
    CleanOptions, CleanPlan, CleanSummary, Doomed, DoomedList, PruneRules, PrunedTag, plan_clean,
    sweep,
};
pub use commit::{CommitOptions, CommitSummary, commit_directory, survey_changes};
pub use copy::{CopiedItem, CopyOptions, CopyPolicy, CopySummary, TagOutcome, copy};
pub use error::{Result, Source, StoreError};
pub use ext::{RepositoryExt, ResolvedEnvironment};
pub use fs::{FsOptions, FsRepository};
pub use grpc::{GrpcOptions, GrpcRepository, Packing, Token};
pub use http::{HttpOptions, HttpRepository};
pub use lingering::nothing_lingers;
pub use location::{Location, OpenOptions, open};
pub use memory::MemoryRepository;
pub use payload::{Body, Payload, PutOptions};
pub use pinned::Pinned;
pub use process::Process;
pub use progress::Progress;
pub use render::{
    RenderOptions, RenderSource, RenderStore, RenderStrategy, RenderSummary, Rendered,
    render_directory,
};
pub use repository::{Repository, TagEntry};
pub use requests::Requests;
pub use retry::{Backoff, STALL_MAX};
pub use server::{
    Access, OpenNamespace, PartialUploads, Right, ServeOptions, Server, ServerStats, ServerTls,
    SpfsServer, SpfsServerOptions,
};
pub use upkeep::{Facts, Hold, Leftover, LeftoverKind, LeftoverOptions, Shelf, Upkeep};
