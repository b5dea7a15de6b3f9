//! SPFS's object graph as plain values: digests, objects and their codecs, tags, specs, stacking.
//!
//! Everything here is a value or a function from values to values. Deliberately absent: input
//! and output, clocks, environment variables, asynchronous code.
//!
//! The formats are described in `FORMAT.md`, which section numbers in these pages refer to.

mod build;
mod codec;
mod digest;
mod entry;
mod env_spec;
mod error;
mod header;
mod merge;
mod diff;
mod object;
mod hidden;
mod tag;
mod time_spec;
mod yaml;
mod spec_file;

pub use build::{DirectoryBuilder, NewEntry};
pub use diff::{Change, Difference, diff};
pub use digest::{DIGEST_TEXT_LEN, Digest, DigestPrefix, Hasher};
pub use entry::{Entry, EntryKind, EntryName, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Tree};
pub use env_spec::{EnvItem, EnvSpec, Reference};
pub use error::{ObjectError, Result};
pub use header::{DigestStrategy, Encoding, HEADER_LEN, Header, ObjectKind};
pub use hidden::{Hidden, hidden};
pub use merge::{MergeOptions, MergedTree, Node, NodeKind};
pub use object::{Annotation, AnnotationValue, Blob, Layer, Manifest, Object, Platform};
pub use spec_file::{BindDest, BindMount, MAX_SPEC_FILE_BYTES, ParsedSpecFile, SpecFile};
pub use tag::{Tag, TagName, TagNamespace, TagSpec, TagStream};
pub use time_spec::{Age, TimeSpec};
