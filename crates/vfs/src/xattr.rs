//! The extended attributes that a mount has, and what they say.
//!
//! The digest and the statistics are known; where a file is served from has to be found out, on
//! disks, and is told by an [`Inquiry`] to be waited for.

use std::ffi::OsStr;
use std::sync::Arc;

use farseek_reader::{BlobReader, Tier, Whereabouts};
use tokio::task;

use crate::local::LocalFiles;

/// Of files and links: the payload.
pub const DIGEST_XATTR: &str = "user.farseek.digest";

/// Of files: how much of it need not be fetched, in percent.
pub const CACHED_XATTR: &str = "user.farseek.cached";

/// Of files: where all of it would be read from now: `passthrough` (the kernel reads a local file
/// by itself), `local`, `memory`, `disk` (both of the reader), or `remote`.
pub const SERVED_FROM_XATTR: &str = "user.farseek.served_from";

/// Of files: whether their bytes are hashed before they are served; `yes` or `no`.
pub const VERIFIED_XATTR: &str = "user.farseek.verified";

/// Of the root directory: what the mount has done, in the words of
/// [`VfsOptions::stats`](crate::VfsOptions::stats).
pub const STATS_XATTR: &str = "user.farseek.stats";

/// The attributes of a file that have to be found out.
const INQUIRIES: [(&str, Question); 3] = [
    (CACHED_XATTR, Question::Cached),
    (SERVED_FROM_XATTR, Question::ServedFrom),
    (VERIFIED_XATTR, Question::Verified),
];

/// The attributes of a file.
pub(crate) const OF_FILES: [&str; 4] = [
    DIGEST_XATTR,
    CACHED_XATTR,
    SERVED_FROM_XATTR,
    VERIFIED_XATTR,
];

/// The value of an attribute, or what it takes to find it out.
pub enum Attribute {
    /// It is known.
    Known(Vec<u8>),
    /// Somebody has to wait for it.
    Inquiry(Inquiry),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Cached,
    ServedFrom,
    Verified,
}

impl Question {
    /// What the attribute `name` of a file asks.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let mut known = INQUIRIES.into_iter();
        known.find(|(known, _)| name == *known).map(|found| found.1)
    }
}

/// How the kernel reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelReads {
    /// It asks us, as long as the file is open.
    ThroughUs,
    /// By itself, as long as the file is open.
    ByItself,
    /// By itself once it is opened, if it is local then.
    ByItselfIfLocal,
}

/// A question of where a file is served from.
pub struct Inquiry {
    pub(crate) question: Question,
    pub(crate) blob: BlobReader,
    pub(crate) local: Option<Arc<LocalFiles>>,
}

impl Inquiry {
    /// Looks where the payload is, and answers.
    pub async fn answer(self, kernel: KernelReads) -> Vec<u8> {
        let Self {
            question,
            blob,
            local,
        } = self;
        let strict = local.as_ref().is_some_and(|local| local.is_strict());
        let is_local = match (kernel, local) {
            (KernelReads::ByItself, _) => true,
            (_, Some(local)) => local.find(blob.digest(), blob.size()).await.is_some(),
            (_, None) => false,
        };
        let found = task::spawn_blocking(move || blob.where_served()).await;
        let Ok(found) = found else {
            return Vec::new();
        };
        let place = Place::of(kernel, is_local, found.tier);
        place.tell(question, &found, strict).into_bytes()
    }
}

/// Where all of a file would be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Passthrough,
    Local,
    Memory,
    Disk,
    Remote,
}

impl Place {
    fn of(kernel: KernelReads, is_local: bool, tier: Tier) -> Self {
        match (is_local, kernel, tier) {
            (true, KernelReads::ByItself | KernelReads::ByItselfIfLocal, _) => Self::Passthrough,
            (_, _, Tier::Memory) => Self::Memory,
            (true, ..) | (_, _, Tier::Local) => Self::Local,
            (_, _, Tier::Disk) => Self::Disk,
            (_, _, Tier::Source) => Self::Remote,
        }
    }

    /// A local file is as it was found, unless all of them are hashed first, or the reader made
    /// it local itself.
    fn tell(self, question: Question, found: &Whereabouts, strict: bool) -> String {
        match question {
            Question::Cached if self == Self::Remote => found.cached_percent.to_string(),
            Question::Cached => "100".to_owned(),
            Question::ServedFrom => self.name().to_owned(),
            Question::Verified => {
                let verified = match self {
                    Self::Passthrough => strict || found.verified && found.tier == Tier::Local,
                    _ => found.verified,
                };
                if verified { "yes" } else { "no" }.to_owned()
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Local => "local",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Remote => "remote",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_name() {
        use KernelReads::{ByItself, ByItselfIfLocal, ThroughUs};
        let table = [
            (ByItself, true, Tier::Source, "passthrough"),
            (ByItselfIfLocal, true, Tier::Memory, "passthrough"),
            (ByItselfIfLocal, false, Tier::Memory, "memory"),
            (ThroughUs, true, Tier::Memory, "memory"),
            (ThroughUs, true, Tier::Disk, "local"),
            (ThroughUs, false, Tier::Local, "local"),
            (ThroughUs, false, Tier::Disk, "disk"),
            (ByItselfIfLocal, false, Tier::Source, "remote"),
        ];
        for (kernel, is_local, tier, name) in table {
            let place = Place::of(kernel, is_local, tier);
            assert_eq!(place.name(), name, "{kernel:?} {is_local} {tier:?}");
        }
    }

    #[test]
    fn only_what_was_hashed_is_verified() {
        let found = |tier, verified| Whereabouts {
            cached_percent: 7,
            tier,
            verified,
        };
        let tell = |place: Place, tier, verified, strict| {
            place.tell(Question::Verified, &found(tier, verified), strict)
        };
        assert_eq!(tell(Place::Passthrough, Tier::Source, true, false), "no");
        assert_eq!(tell(Place::Passthrough, Tier::Source, false, true), "yes");
        assert_eq!(tell(Place::Passthrough, Tier::Local, true, false), "yes");
        assert_eq!(tell(Place::Remote, Tier::Source, true, false), "yes");
        assert_eq!(tell(Place::Disk, Tier::Disk, false, false), "no");
        let cached = |place: Place| place.tell(Question::Cached, &found(Tier::Source, true), false);
        assert_eq!(
            (cached(Place::Remote), cached(Place::Local)),
            ("7".into(), "100".into())
        );
    }
}
