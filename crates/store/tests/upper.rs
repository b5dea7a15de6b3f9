//! Commits of the upper directory of an overlay, against a model of what the kernel shows.
//!
//! The directories are made by hand, with the marks that the kernel leaves, so that no mount and no
//! right is needed; the tests of `farseek run` compare with the kernel itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use farseek_object::{Digest, EntryKind, Manifest, MergeOptions, MergedTree, NodeKind, Object};
use farseek_store::{
    CommitOptions, CommitSummary, MemoryRepository, Repository, StoreError, commit_directory,
    survey_changes,
};
use farseek_testkit::Random;
use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::{XattrFlags, lsetxattr};

/// Something in a tree: in an upper one, there are marks as well.
#[derive(Debug, Clone, PartialEq)]
enum Thing {
    File(u32, String),
    Link(String),
    Dir(u32, bool, Things),
    Mask,
}

type Things = BTreeMap<String, Thing>;

fn random_things(random: &mut Random, depth: u32, is_upper: bool) -> Things {
    let mut things = Things::new();
    for name in ["a", "b", "c", "d"] {
        let thing = match random.below(10) {
            0..2 => continue,
            2..5 => {
                let mode = *random.pick(&[0o644, 0o755]);
                Thing::File(mode, random.pick(&["", "x", "y"]).to_string())
            }
            5 => Thing::Link(random.pick(&["a", "b"]).to_string()),
            6 if is_upper => Thing::Mask,
            _ if depth == 0 => continue,
            _ => {
                let mode = *random.pick(&[0o755, 0o755, 0o700]);
                let opaque = is_upper && random.once_in(2);
                Thing::Dir(mode, opaque, random_things(random, depth - 1, is_upper))
            }
        };
        things.insert(name.to_owned(), thing);
    }
    things
}

/// What an overlay shows of `upper` over `lower`.
fn shown(lower: &Things, upper: &Things) -> Things {
    let mut seen = lower.clone();
    for (name, thing) in upper {
        let below = match (thing, lower.get(name)) {
            (Thing::Dir(_, false, _), Some(Thing::Dir(_, _, below))) => below.clone(),
            _ => Things::new(),
        };
        match thing {
            Thing::Mask => drop(seen.remove(name)),
            Thing::Dir(mode, _, things) => {
                let inside = shown(&below, things);
                seen.insert(name.clone(), Thing::Dir(*mode, false, inside));
            }
            thing => drop(seen.insert(name.clone(), thing.clone())),
        }
    }
    seen
}

fn make(directory: &Path, things: &Things) {
    for (name, thing) in things {
        let path = directory.join(name);
        match thing {
            Thing::File(mode, text) => {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Thing::Link(target) => symlink(target, &path).unwrap(),
            Thing::Dir(mode, opaque, things) => {
                fs::create_dir(&path).unwrap();
                make(&path, things);
                if *opaque {
                    mark(&path, "opaque", b"y");
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            // Anybody may make this one.
            Thing::Mask => mknod(&path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap(),
        }
    }
}

fn mark(path: &Path, name: &str, value: &[u8]) {
    let name = format!("user.overlay.{name}");
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Paths with their kinds, modes and payloads.
fn flat(things: &Things, prefix: &str, paths: &mut BTreeMap<String, (NodeKind, u32, Digest)>) {
    for (name, thing) in things {
        let path = format!("{prefix}{name}");
        let found = match thing {
            Thing::File(mode, text) => (NodeKind::File, *mode, Digest::of(text.as_bytes())),
            Thing::Link(to) => (NodeKind::Symlink, 0o777, Digest::of(to.as_bytes())),
            Thing::Dir(mode, _, things) => {
                flat(things, &format!("{path}/"), paths);
                (NodeKind::Directory, *mode, Digest::NULL)
            }
            Thing::Mask => continue,
        };
        paths.insert(path, found);
    }
}

fn flat_tree(tree: &MergedTree) -> BTreeMap<String, (NodeKind, u32, Digest)> {
    let positions = 1..tree.nodes().len() as u32;
    let entry = |at: u32| {
        let node = tree.node(at).unwrap();
        (
            tree.path(at),
            (node.kind(), node.mode & 0o7777, node.payload),
        )
    };
    positions.map(entry).collect()
}

fn merged(manifests: &[&Manifest]) -> MergedTree {
    MergedTree::new(manifests, MergeOptions::default()).unwrap()
}

async fn manifest(repository: &Arc<dyn Repository>, summary: &CommitSummary) -> Manifest {
    match repository.get_object(&summary.manifest).await.unwrap() {
        Object::Manifest(manifest) => manifest,
        other => panic!("{other:?}"),
    }
}

async fn commit(
    repository: &Arc<dyn Repository>,
    directory: &Path,
    base: Option<Arc<MergedTree>>,
) -> Result<CommitSummary, StoreError> {
    let options = CommitOptions {
        base,
        ..CommitOptions::default()
    };
    commit_directory(Arc::clone(repository), directory, options, &()).await
}

#[tokio::test]
async fn a_layer_shows_what_the_overlay_shows_and_holds_no_more() {
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let lower = random_things(&mut random, 3, false);
        let upper = random_things(&mut random, 3, true);
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        make(places[0].path(), &lower);
        make(places[1].path(), &upper);
        let base = commit(&memory, places[0].path(), None).await.unwrap();
        let base = manifest(&memory, &base).await;
        let tree = Arc::new(merged(&[&base]));
        let summary = commit(&memory, places[1].path(), Some(Arc::clone(&tree))).await;
        let summary = summary.unwrap();
        let layer = manifest(&memory, &summary).await;
        let surveyed = survey_changes(places[1].path(), &tree).unwrap();
        assert_eq!(surveyed.trees(), layer.trees(), "seed {seed}");
        let mut expected = BTreeMap::new();
        flat(&shown(&lower, &upper), "", &mut expected);
        let both = merged(&[&base, &layer]);
        assert_eq!(
            flat_tree(&both),
            expected,
            "seed {seed}: {lower:?} {upper:?}"
        );
        holds_no_more(&layer, &tree, &both, &summary, seed);
    }
}

/// Every entry of a layer says something that is not so without it.
fn holds_no_more(
    layer: &Manifest,
    base: &MergedTree,
    both: &MergedTree,
    summary: &CommitSummary,
    seed: u64,
) {
    let trees: BTreeMap<Digest, _> = layer.trees().iter().map(|t| (t.digest(), t)).collect();
    let mut pending = vec![(String::new(), layer.root())];
    let (mut files, mut masks) = (0, 0);
    while let Some((prefix, tree)) = pending.pop() {
        for entry in tree.entries() {
            let path = format!("{prefix}{}", entry.name);
            let old = base.find(&path).and_then(|at| base.node(at));
            match entry.kind {
                EntryKind::Mask => {
                    masks += 1;
                    assert!(old.is_some(), "seed {seed}: {path} was not there");
                    assert!(both.find(&path).is_none(), "seed {seed}: {path}");
                }
                EntryKind::Tree => {
                    let inside = trees[&entry.object];
                    let same = old.is_some_and(|old| old.mode == entry.mode);
                    let says = !same || !inside.entries().is_empty();
                    assert!(says, "seed {seed}: {path} is as it was");
                    pending.push((format!("{path}/"), inside));
                }
                EntryKind::Blob => {
                    files += 1;
                    let new = (entry.mode, entry.object);
                    let same = old.is_some_and(|old| (old.mode, old.payload) == new);
                    assert!(!same, "seed {seed}: {path} is as it was");
                }
            }
        }
    }
    let counted = (summary.files + summary.symlinks, summary.masks);
    assert_eq!((files, masks), counted, "seed {seed}");
}

#[tokio::test]
async fn whiteouts_may_be_files() {
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let [lower, upper] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for name in ["gone", "empty", "kept"] {
        fs::write(lower.path().join(name), "x").unwrap();
    }
    for name in ["gone", "empty"] {
        fs::write(upper.path().join(name), "").unwrap();
    }
    mark(&upper.path().join("gone"), "whiteout", b"y");
    mark(upper.path(), "opaque", b"x");
    let base = commit(&memory, lower.path(), None).await.unwrap();
    let tree = Arc::new(merged(&[&manifest(&memory, &base).await]));
    let summary = commit(&memory, upper.path(), Some(tree)).await.unwrap();
    assert_eq!((summary.masks, summary.files), (1, 1));
}

#[tokio::test]
async fn what_is_only_understood_with_what_is_below_is_refused() {
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let tree = Arc::new(merged(&[]));
    for (name, is_directory) in [("redirect", true), ("metacopy", false)] {
        let upper = tempfile::tempdir().unwrap();
        let path = upper.path().join("moved");
        match is_directory {
            true => fs::create_dir(&path).unwrap(),
            false => fs::write(&path, "").unwrap(),
        }
        mark(&path, name, b"a long value, or none");
        let error = commit(&memory, upper.path(), Some(Arc::clone(&tree))).await;
        let said = error.unwrap_err().to_string();
        assert!(said.contains("moved") && said.contains(name), "{said}");
    }
}
