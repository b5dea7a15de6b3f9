//! Making a new archive out of the old one and what is to be added, and putting it in its place.
//!
//! What stays is copied as it stands, in runs of blocks; what was replaced or removed is left
//! out; the new files follow. The new archive is complete and on the disk before it gets the old
//! one's name, so a crash at any moment leaves the one or the other.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use farseek_object::Digest;
use tar::{Builder, EntryType, Header};

use super::archive::Archive;
use super::index::{Index, Slot};
use super::work::{Added, Work};
use crate::error::{Result, StoreError};
use crate::fs::durable;

/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// Characters of a digest that name its directory.
const SHARD_LEN: usize = 2;

/// Mode of a new tag's file.
const TAG_MODE: u32 = 0o666;

/// What was taken out of the archive and is still in its file.
#[derive(Debug, Clone, Default)]
pub(super) struct Removed {
    pub(super) objects: HashSet<Digest>,
    pub(super) payloads: HashSet<Digest>,
}

/// A tag's new history, by its path below `tags`; `None` where the tag is gone.
#[derive(Debug)]
pub(super) struct TagChange {
    pub(super) path: String,
    pub(super) history: Option<Vec<u8>>,
}

/// Everything that differs between the old archive and the new one.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) objects: Vec<Added>,
    pub(super) payloads: Vec<Added>,
    pub(super) removed: Removed,
    pub(super) tag: Option<TagChange>,
}

impl Changes {
    /// Whether the new archive would be the old one.
    pub(super) fn is_empty(&self) -> bool {
        let Removed { objects, payloads } = &self.removed;
        self.objects.is_empty()
            && self.payloads.is_empty()
            && objects.is_empty()
            && payloads.is_empty()
            && self.tag.is_none()
    }
}

/// Makes the new archive at `path`.
pub(super) fn pack(
    path: &Path,
    old: Option<&Archive>,
    work: &Work,
    changes: &Changes,
) -> Result<()> {
    let new_path = work.archive();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&new_path)
        .map_err(StoreError::io("create", &new_path))?;
    let written = write(&file, old, work, changes);
    // A person knows the archive, not where the new one is made; and that it takes room is new.
    written.map_err(StoreError::io("write, beside the old one, a new", path))?;
    if let Some(old) = old {
        let mode = old.file.metadata().map(|metadata| metadata.permissions());
        let kept = mode.and_then(|mode| file.set_permissions(mode));
        kept.map_err(StoreError::io("set the mode of", &new_path))?;
    }
    file.sync_all().map_err(StoreError::io("sync", &new_path))?;
    fs::rename(&new_path, path).map_err(StoreError::io("create", path))?;
    durable::sync_dir(path.parent().expect("an archive is in a directory"))
}

fn write(file: &File, old: Option<&Archive>, work: &Work, changes: &Changes) -> io::Result<()> {
    let mut file = file;
    if let Some(old) = old {
        for run in runs(kept(&old.index, changes)) {
            copy(&old.file, run, file)?;
        }
        file.seek(SeekFrom::End(0))?;
    }
    let mut builder = Builder::new(BufWriter::with_capacity(BUFFER, file));
    if old.is_none() {
        begin(&mut builder, work)?;
    }
    if let Some(old) = old {
        linked(&mut builder, old, changes)?;
    }
    // Payloads first: a blob object promises that its payload is there.
    for (store, added) in [
        ("payloads", &changes.payloads),
        ("objects", &changes.objects),
    ] {
        for added in added {
            let mut file = File::open(&added.path)?;
            let mut header = Header::new_gnu();
            header.set_metadata(&file.metadata()?);
            let name = name_of(store, &added.digest);
            builder.append_data(&mut header, name, &mut file)?;
        }
    }
    if let Some(TagChange {
        path,
        history: Some(history),
    }) = &changes.tag
    {
        let name = format!("tags/{path}.tag");
        append(
            &mut builder,
            &name,
            TAG_MODE,
            history.len() as u64,
            &history[..],
        )?;
    }
    builder.into_inner()?.flush()
}

/// The directories that make an archive a repository, and its version.
fn begin(builder: &mut Builder<impl Write>, work: &Work) -> io::Result<()> {
    for directory in ["objects/", "payloads/", "tags/"] {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o777);
        header.set_mtime(now());
        header.set_size(0);
        builder.append_data(&mut header, directory, io::empty())?;
    }
    let mut header = Header::new_gnu();
    let mut version = File::open(work.version())?;
    header.set_metadata(&version.metadata()?);
    builder.append_data(&mut header, "VERSION", &mut version)
}

/// Writes out what was only a link in the old archive: what it names may have moved or gone.
fn linked(builder: &mut Builder<impl Write>, old: &Archive, changes: &Changes) -> io::Result<()> {
    let of = |store, slots, gone: &dyn Fn(&Digest) -> bool| {
        links_of(slots)
            .filter(|(digest, _)| !gone(digest))
            .map(|(digest, slot)| (name_of(store, digest), slot.clone()))
            .collect::<Vec<_>>()
    };
    let gone = Gone::new(changes);
    let mut all = of("objects", &old.index.objects, &|digest| gone.object(digest));
    all.extend(of("payloads", &old.index.payloads, &|digest| {
        gone.payload(digest)
    }));
    let tags = old
        .index
        .tags
        .iter()
        .filter(|(_, slot)| slot.raw.is_empty());
    let tags = tags.filter(|(path, _)| !gone.tag(path));
    all.extend(tags.map(|(path, slot)| (format!("tags/{path}.tag"), slot.clone())));
    for (name, slot) in all {
        let mut file = &old.file;
        file.seek(SeekFrom::Start(slot.data.start))?;
        append(
            builder,
            &name,
            0o666,
            slot.size(),
            io::Read::take(file, slot.size()),
        )?;
    }
    Ok(())
}

fn links_of(
    slots: &std::collections::BTreeMap<Digest, Slot>,
) -> impl Iterator<Item = (&Digest, &Slot)> {
    slots.iter().filter(|(_, slot)| slot.raw.is_empty())
}

fn append(
    builder: &mut Builder<impl Write>,
    name: &str,
    mode: u32,
    size: u64,
    bytes: impl io::Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_mtime(now());
    header.set_size(size);
    builder.append_data(&mut header, name, bytes)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn name_of(store: &str, digest: &Digest) -> String {
    let text = digest.to_string();
    let (shard, rest) = text.split_at(SHARD_LEN);
    format!("{store}/{shard}/{rest}")
}

/// What of the old archive does not go into the new one.
struct Gone<'a> {
    changes: &'a Changes,
    objects: HashSet<Digest>,
    payloads: HashSet<Digest>,
}

impl<'a> Gone<'a> {
    fn new(changes: &'a Changes) -> Self {
        let all = |added: &[Added], removed: &HashSet<Digest>| {
            let added = added.iter().map(|added| added.digest);
            added.chain(removed.iter().copied()).collect()
        };
        Self {
            objects: all(&changes.objects, &changes.removed.objects),
            payloads: all(&changes.payloads, &changes.removed.payloads),
            changes,
        }
    }

    fn object(&self, digest: &Digest) -> bool {
        self.objects.contains(digest)
    }

    fn payload(&self, digest: &Digest) -> bool {
        self.payloads.contains(digest)
    }

    fn tag(&self, path: &str) -> bool {
        self.changes
            .tag
            .as_ref()
            .is_some_and(|tag| tag.path == path)
    }
}

/// The entries of the old archive that stay, as blocks.
fn kept(index: &Index, changes: &Changes) -> Vec<Range<u64>> {
    let gone = Gone::new(changes);
    let objects = index
        .objects
        .iter()
        .filter(|(digest, _)| !gone.object(digest));
    let payloads = index
        .payloads
        .iter()
        .filter(|(digest, _)| !gone.payload(digest));
    let tags = index.tags.iter().filter(|(path, _)| !gone.tag(path));
    let slots = objects
        .map(|(_, slot)| slot)
        .chain(payloads.map(|(_, slot)| slot))
        .chain(tags.map(|(_, slot)| slot))
        .chain(index.others.values());
    slots
        .map(|slot| slot.raw.clone())
        .chain(index.nameless.iter().cloned())
        .filter(|raw| !raw.is_empty())
        .collect()
}

/// Sorted, and neighbours joined: few large copies instead of one an entry.
fn runs(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => runs.push(range),
        }
    }
    runs
}

/// Copies `run` of `old` to the end of `new`; the file system does it where it can.
fn copy(mut old: &File, run: Range<u64>, mut new: &File) -> io::Result<()> {
    old.seek(SeekFrom::Start(run.start))?;
    let length = run.end - run.start;
    let copied = io::copy(&mut io::Read::take(old, length), &mut new)?;
    if copied == length {
        return Ok(());
    }
    let reason = "the old archive has become shorter while it was copied";
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason))
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn neighbours_are_copied_together() {
        assert_eq!(runs(vec![]), vec![]);
        let scattered = vec![1024..2048, 0..512, 512..1024, 4096..4608];
        assert_eq!(runs(scattered), vec![0..2048, 4096..4608]);
    }
}
