//! Places for live layers in an environment that has none: empty directories and files.

use std::collections::BTreeMap;

use farseek_object::{
    BindDest, Digest, DirectoryBuilder, EntryName, Header, Manifest, MergeOptions, MergedTree,
    NewEntry, NodeKind, ObjectError, S_IFDIR, S_IFREG,
};

use super::{LiveBind, is_within};
use crate::error::{Result, RuntimeError};

/// The tree of `layers`, bottom first, with a place for each of `binds`.
///
/// # Errors
/// The layers cannot be merged, or what is at such a place cannot be one.
pub(crate) fn with_points(
    layers: &[&Manifest],
    binds: &[LiveBind],
    options: MergeOptions,
) -> Result<MergedTree> {
    let tree = MergedTree::new(layers, options).map_err(RuntimeError::Merge)?;
    let refused = |reason| RuntimeError::LiveLayer { reason };
    let points = missing(&tree, binds).map_err(refused)?;
    if points.is_empty() {
        return Ok(tree);
    }
    let extra = build(points).and_then(|root| root.into_manifest(Header::default()));
    let extra = extra.map_err(RuntimeError::Merge)?;
    let layers: Vec<&Manifest> = layers.iter().copied().chain([&extra]).collect();
    MergedTree::new(&layers, options).map_err(RuntimeError::Merge)
}

/// What is to be added to a directory, by name.
type Points = BTreeMap<String, Point>;

#[derive(Debug, PartialEq, Eq)]
enum Point {
    File,
    /// With its `st_mode`: that of the environment's where it has one.
    Directory(u32, Points),
}

/// What `tree` lacks.
fn missing(tree: &MergedTree, binds: &[LiveBind]) -> Result<Points, String> {
    let mut points = Points::new();
    for (position, bind) in binds.iter().enumerate() {
        let is_covered = |before: &LiveBind| is_within(&bind.dest, &before.dest);
        if binds[..position].iter().any(is_covered) || is_there(tree, bind)? {
            continue;
        }
        add(&mut points, tree, bind)?;
    }
    Ok(points)
}

/// Whether there is a place for `bind`.
fn is_there(tree: &MergedTree, bind: &LiveBind) -> Result<bool, String> {
    let names = bind.dest.names();
    let mut at = 0;
    for (position, name) in names.iter().enumerate() {
        let Some(next) = tree.child(at, name) else {
            return Ok(false);
        };
        let kind = tree.node(next).map(farseek_object::Node::kind);
        let is_last = position + 1 == names.len();
        let expected = match is_last && !bind.is_directory {
            true => NodeKind::File,
            false => NodeKind::Directory,
        };
        if kind != Some(expected) {
            return Err(unfit(bind, &names[..=position], kind, is_last));
        }
        at = next;
    }
    Ok(true)
}

fn unfit(bind: &LiveBind, names: &[String], kind: Option<NodeKind>, is_last: bool) -> String {
    let (source, dest, found) = (bind.source.display(), &bind.dest, names.join("/"));
    let what = match (kind, is_last) {
        (Some(NodeKind::Symlink), _) => {
            "is a symbolic link in the environment, and none is followed: name what it leads to"
        }
        (_, false) => "is no directory in the environment",
        (_, true) if bind.is_directory => "is a file in the environment",
        (_, true) => "is a directory in the environment",
    };
    format!("cannot show {source} at '{dest}': '{found}' {what}")
}

fn add(points: &mut Points, tree: &MergedTree, bind: &LiveBind) -> Result<(), String> {
    let clash = |dest: &BindDest| {
        let source = bind.source.display();
        format!("cannot show {source} at '{dest}': it is to be a file and a directory at once")
    };
    let (last, way) = bind.dest.names().split_last().expect("it has a name");
    let (mut here, mut at) = (points, Some(0));
    for name in way {
        at = at.and_then(|at| tree.child(at, name));
        let mode = at.and_then(|at| tree.node(at)).map(|node| node.mode);
        let directory = Point::Directory(mode.unwrap_or(S_IFDIR | 0o755), Points::new());
        here = match here.entry(name.clone()).or_insert(directory) {
            Point::Directory(_, inner) => inner,
            Point::File => return Err(clash(&bind.dest)),
        };
    }
    let point = match bind.is_directory {
        true => Point::Directory(S_IFDIR | 0o755, Points::new()),
        false => Point::File,
    };
    match (here.entry(last.clone()).or_insert(point), bind.is_directory) {
        (Point::Directory(..), true) | (Point::File, false) => Ok(()),
        _ => Err(clash(&bind.dest)),
    }
}

/// No deeper than a path may be.
fn build(points: Points) -> Result<DirectoryBuilder, ObjectError> {
    let mut directory = DirectoryBuilder::new();
    for (name, point) in points {
        let entry = match point {
            Point::File => NewEntry::Blob {
                object: Digest::of(b""),
                mode: S_IFREG | 0o644,
                size: 0,
            },
            Point::Directory(mode, inner) => NewEntry::Directory {
                mode,
                contents: build(inner)?,
            },
        };
        directory.insert(EntryName::new(&name)?, entry);
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use farseek_object::S_IFLNK;

    use super::*;

    fn blob(mode: u32) -> NewEntry {
        NewEntry::Blob {
            object: Digest::of(b""),
            mode,
            size: 0,
        }
    }

    /// `file`, `link`, and `dir` with `sub`.
    fn environment() -> Manifest {
        let directory = |mode, entries: Vec<(&str, NewEntry)>| {
            let mut contents = DirectoryBuilder::new();
            for (name, entry) in entries {
                contents.insert(EntryName::new(name).unwrap(), entry);
            }
            NewEntry::Directory { mode, contents }
        };
        let sub = directory(S_IFDIR | 0o711, Vec::new());
        let root = vec![
            ("file", blob(S_IFREG | 0o600)),
            ("link", blob(S_IFLNK | 0o777)),
            ("dir", directory(S_IFDIR | 0o750, vec![("sub", sub)])),
        ];
        let NewEntry::Directory { contents, .. } = directory(0, root) else {
            unreachable!("it is one");
        };
        contents.into_manifest(Header::default()).unwrap()
    }

    fn tree(binds: &[(&str, bool)]) -> Result<MergedTree, String> {
        let binds: Vec<_> = binds
            .iter()
            .map(|(dest, is_directory)| LiveBind {
                source: "/source".into(),
                is_directory: *is_directory,
                dest: dest.parse().unwrap(),
            })
            .collect();
        let found = with_points(&[&environment()], &binds, MergeOptions::default());
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_there_stays_as_it_is_and_the_rest_is_made() {
        let all = tree(&[
            ("dir/new/deep", true),
            ("dir/sub", true),
            ("dir/sub/inner", false),
            ("file", false),
            ("other/x", false),
            ("other", true),
        ]);
        let all = all.unwrap();
        let paths: Vec<_> = (1..all.nodes().len())
            .map(|at| all.path(at as u32))
            .collect();
        let expected = [
            "dir",
            "file",
            "link",
            "other",
            "dir/new",
            "dir/sub",
            "other/x",
            "dir/new/deep",
        ];
        assert_eq!(paths, expected);
        let mode = |path| all.node(all.find(path).unwrap()).unwrap().mode & 0o7777;
        assert_eq!(mode("dir"), 0o750);
        assert_eq!(mode("dir/sub"), 0o711);
        assert_eq!(mode("file"), 0o600);
        assert_eq!(mode("dir/new"), 0o755);
        // Nothing to make: nothing is merged again.
        assert_eq!(tree(&[("dir/sub", true)]).unwrap().nodes().len(), 5);
    }

    #[test]
    fn what_cannot_be_a_place_is_refused() {
        for (binds, said) in [
            (&[("link", true)][..], "'link' is a symbolic link"),
            (&[("link/x", true)], "'link' is a symbolic link"),
            (&[("file/x", false)], "'file' is no directory"),
            (&[("file", true)], "'file' is a file"),
            (&[("dir", false)], "'dir' is a directory"),
            (&[("new/x", false), ("new", false)], "at once"),
        ] {
            let error = tree(binds).unwrap_err();
            assert!(error.contains(said), "{binds:?}: {error}");
            assert!(error.starts_with("cannot show /source at"), "{error}");
        }
    }
}
