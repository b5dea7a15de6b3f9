//! What cannot be had from outside: links that the system refuses, names that no manifest has.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use farseek_object::{DirectoryBuilder, EntryName, Header, Manifest, NewEntry, S_IFREG};
use futures::{StreamExt as _, stream};
use rustix::io::Errno;

use super::directory::Directory;
use super::proxies::{self, Link};
use super::*;
use crate::fs::{FsOptions, FsRepository};
use crate::payload::PutOptions;
use crate::repository::Repository as _;

/// Files of one content.
const FILES: u64 = 5;

async fn layer(repository: &FsRepository) -> Manifest {
    let body = stream::once(async { Ok(Bytes::from_static(b"the same")) });
    let put = PutOptions::default();
    let (object, size) = repository.put_payload(body.boxed(), put).await.unwrap();
    let mut contents = DirectoryBuilder::new();
    for number in 0..FILES {
        let name = EntryName::new(&format!("file {number}")).unwrap();
        let mode = S_IFREG | 0o640;
        contents.insert(name, NewEntry::Blob { object, mode, size });
    }
    contents.into_manifest(Header::default()).unwrap()
}

/// Renders with links made by `link`, and gives how many files are links.
async fn linked(link: Link) -> u64 {
    let place = tempfile::tempdir().unwrap();
    let repository = FsRepository::create(place.path(), FsOptions::default()).unwrap();
    let repository = Arc::new(repository);
    let layer = layer(&repository).await;
    let renders = RenderStore::new(repository, "me").unwrap().with_link(link);
    let options = RenderOptions {
        concurrency: 1,
        ..RenderOptions::default()
    };
    let rendered = renders.render(layer, &options, Arc::new(())).await.unwrap();
    for number in 0..FILES {
        let path = rendered.path.join(format!("file {number}"));
        assert_eq!(fs::read(&path).unwrap(), b"the same");
        assert_eq!(fs::metadata(&path).unwrap().mode(), S_IFREG | 0o640);
    }
    for work in ["renders/me/work", "renders/me/proxy/work"] {
        assert_eq!(fs::read_dir(place.path().join(work)).unwrap().count(), 0);
    }
    rendered.summary.unwrap().linked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_links_to_be_had_is_copied() {
    // As a file system with room for two more names of the file.
    fn few(from: &Path, to: &Directory, name: &str) -> Result<(), Errno> {
        match fs::metadata(from) {
            Ok(found) if found.nlink() > 2 => Err(Errno::MLINK),
            _ => proxies::link(from, to, name),
        }
    }
    assert_eq!(linked(few).await, 2);
    for refusal in [
        (|_, _, _| Err(Errno::XDEV)) as Link,
        |_, _, _| Err(Errno::PERM),
        |_, _, _| Err(Errno::OPNOTSUPP),
    ] {
        assert_eq!(linked(refusal).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clean_has_taken_away_is_made_anew_a_few_times() {
    /// Links that are still to fail.
    static FAILURES: AtomicUsize = AtomicUsize::new(3);
    fn taken_away(from: &Path, to: &Directory, name: &str) -> Result<(), Errno> {
        let one_less = |left: usize| left.checked_sub(1);
        match FAILURES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            Ok(_) => Err(Errno::NOENT),
            Err(_) => proxies::link(from, to, name),
        }
    }
    assert_eq!(linked(taken_away).await, FILES);
    assert_eq!(linked(|_, _, _| Err(Errno::NOENT)).await, 0, "then copied");
}

#[test]
fn a_name_stays_in_its_directory() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("in")).unwrap();
    fs::write(place.path().join("outside"), "theirs").unwrap();
    let directory = Directory::open(&place.path().join("in")).unwrap();
    let absolute = place.path().join("made");
    let outside = [
        "../made",
        "..",
        ".",
        "",
        "a/b",
        "a\0b",
        absolute.to_str().unwrap(),
    ];
    for name in outside {
        assert!(directory.make(name, true).is_err(), "{name:?}");
        assert!(directory.enter(name, false).is_err(), "{name:?}");
        assert!(directory.create(name).is_err(), "{name:?}");
        assert!(directory.symlink(b"x", name).is_err(), "{name:?}");
        assert!(
            proxies::link(&place.path().join("outside"), &directory, name).is_err(),
            "{name:?}"
        );
    }
    assert!(directory.unlink("../outside").is_err());
    assert!(directory.stat("../outside").is_err());
    let mut left: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["in", "outside"]);
    assert_eq!(fs::read_dir(place.path().join("in")).unwrap().count(), 0);
}
