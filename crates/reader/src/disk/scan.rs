//! What the tier holds, from its directory: only eviction and reports need to know.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::evict::Candidate;
use super::map::{Geometry, HEADER_LEN, is_present};
use super::payload_file::{PayloadFile, lock_shared, punch};

/// A payload or a segment of one, as it lies on the disk.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The path without its ending.
    path: PathBuf,
    /// The segment and the geometry, where only a part of the payload is meant.
    segment: Option<(u64, Geometry)>,
    pub(crate) candidate: Candidate<usize>,
}

impl Stored {
    /// Removes it. What cannot be removed stays: the next scan finds it again.
    pub(crate) fn evict(&self) {
        match self.segment {
            None => {
                let _ = evict_files(&self.path);
            }
            Some((segment, geometry)) => {
                let file = PayloadFile::open(&self.path, geometry, false);
                let _ = file.map(|file| file.map(|file| file.punch(segment)));
            }
        }
    }
}

/// Removes the files at `path`, unless somebody is making a repository's payload of them. Their
/// space is given back at once, whoever has them open.
fn evict_files(path: &Path) -> io::Result<()> {
    let data_path = path.with_extension("data");
    match lock_shared(&data_path, false) {
        Ok(Some(data)) => {
            let len = data.metadata()?.len();
            if len > 0 {
                let _ = punch(&data, 0, len);
            }
            let _ = fs::remove_file(path.with_extension("map"));
            fs::remove_file(&data_path)
        }
        Ok(None) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::remove_file(path.with_extension("map"))
        }
        Err(error) => Err(error),
    }
}

/// Everything in `root`, large payloads by segment. What cannot be read is passed over.
pub(crate) fn scan(root: &Path) -> Vec<Stored> {
    let shards = fs::read_dir(root).into_iter().flatten().flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten());
    files
        .flat_map(|file| stored(&file.path()).unwrap_or_default())
        .collect()
}

/// What the file at `path` stands for. A data file answers for its map, and a map for itself
/// where its data file is gone.
fn stored(path: &Path) -> io::Result<Vec<Stored>> {
    let map_path = path.with_extension("map");
    let is_map = path == map_path;
    if is_map && path.with_extension("data").exists() {
        return Ok(Vec::new());
    }
    let bytes = fs::metadata(path)?.blocks() * 512;
    let whole = |bytes, last_used| Stored {
        path: path.with_extension(""),
        segment: None,
        candidate: Candidate {
            id: 0,
            bytes,
            last_used,
        },
    };
    let Ok(map) = File::open(&map_path) else {
        return Ok(vec![whole(bytes.max(1), 0)]);
    };
    let mut header = [0; HEADER_LEN as usize];
    let geometry = map
        .read_exact_at(&mut header, 0)
        .ok()
        .and_then(|()| Geometry::parse(&header));
    let Some(geometry) = geometry else {
        return Ok(vec![whole(bytes.max(1), 0)]);
    };
    let map_bytes = map.metadata()?.blocks() * 512;
    if geometry.segments() == 1 {
        return Ok(vec![whole(
            bytes + map_bytes,
            last_used(&map, &geometry, 0)?,
        )]);
    }
    let mut segments = Vec::new();
    for segment in 0..geometry.segments() {
        segments.push(segment_of(path, &map, geometry, segment)?);
    }
    let last_used = segments.iter().map(|s| s.candidate.last_used).max();
    segments.retain(|s| s.candidate.bytes > 0);
    if segments.is_empty() {
        return Ok(vec![whole(bytes + map_bytes, last_used.unwrap_or(0))]);
    }
    Ok(segments)
}

fn segment_of(path: &Path, map: &File, geometry: Geometry, segment: u64) -> io::Result<Stored> {
    let blocks = geometry.blocks_of(segment);
    let len = geometry.record_len();
    let mut records = vec![0; ((blocks.end - blocks.start) * len) as usize];
    map.read_exact_at(&mut records, geometry.record_at(blocks.start))?;
    let present = records
        .chunks(len as usize)
        .filter(|r| is_present(r))
        .count() as u64;
    Ok(Stored {
        path: path.with_extension(""),
        segment: Some((segment, geometry)),
        candidate: Candidate {
            id: 0,
            bytes: present * geometry.block_size,
            last_used: last_used(map, &geometry, segment)?,
        },
    })
}

fn last_used(map: &File, geometry: &Geometry, segment: u64) -> io::Result<u64> {
    let mut bytes = [0; 4];
    map.read_exact_at(&mut bytes, geometry.used_at(segment))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}
