//! Live layers: files and directories of the host that are shown in an environment as they are,
//! by bind mounts in the runtime's namespace (FORMAT.md section 5.3).
//!
//! The environment gets an empty directory or file for each that has no place in it yet
//! ([`with_points`]): in the tree that is served, so that a runtime need not be editable for it, and
//! so that none of it is in an upper directory and is committed. They are mounted above everything
//! else ([`show`]), and moved from below to above whatever is mounted over them later
//! ([`lift`], [`put`]): what is shown does not change with it.
//!
//! A runtime that is read-only shows them read-only. In an editable one they can be written to as
//! on the host, where the mount they are in allows it, and what is written is written there: it is
//! no change of the environment. What is mounted below them on the host is shown too. Where one
//! could not be put back above an overlay that was mounted since, which is told, its placeholder
//! there can be written to like everything else, and that is a change.
//!
//! No link is followed on the way to a source, which has been made one without links, nor on the
//! way to where it is shown: an environment does not say which file of the host is hidden.

mod attributes;
mod host_side;
mod bind;
mod points;

use std::fs;
use std::path::{Path, PathBuf};

use farseek_object::BindDest;
use serde_json::{Value, json};

pub(crate) use bind::{Lifted, allow_writing, copy_of, lift, put, restore, show};
pub(crate) use points::with_points;

use crate::error::{Result, RuntimeError};

/// What SPFS calls a live layer.
const API: &str = "spfs/v0/livelayer";

/// Of one runtime: their paths fit into one message.
pub(crate) const MAX_BINDS: usize = 100;

/// A file or directory of the host that is shown in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveBind {
    /// Which: absolute, and without links.
    pub source: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Where.
    pub dest: BindDest,
}

/// What one spec file shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLayer {
    /// In the order in which they are mounted.
    pub binds: Vec<LiveBind>,
}

impl LiveBind {
    /// The file or directory `source` at `dest`.
    ///
    /// # Errors
    /// It is not there, or is something else.
    pub(crate) fn new(source: PathBuf, dest: BindDest) -> Result<Self, String> {
        let metadata = fs::metadata(&source).map_err(|error| told(&source, &error))?;
        if !metadata.is_dir() && !metadata.is_file() {
            let source = source.display();
            return Err(format!("{source} is neither a file nor a directory"));
        }
        Ok(Self {
            is_directory: metadata.is_dir(),
            source,
            dest,
        })
    }
}

impl LiveLayer {
    /// As records have it.
    pub fn to_record(&self) -> Value {
        let contents = self.binds.iter().map(|bind| {
            let src = bind.source.to_string_lossy();
            json!({ "src": src, "dest": bind.dest.as_str() })
        });
        json!({ "api": API, "contents": contents.collect::<Vec<_>>() })
    }

    /// What a record has, whose sources must still be there.
    ///
    /// # Errors
    /// They are not, or the record says something else. A record is input.
    pub fn of_record(value: &Value) -> Result<Self> {
        let contents = value["contents"].as_array();
        let contents = contents.ok_or_else(|| refused("it has no contents"))?;
        let binds = contents.iter().map(|item| {
            let (src, dest) = (item["src"].as_str(), item["dest"].as_str());
            let (src, dest) = src.zip(dest).ok_or_else(|| refused("it shows nothing"))?;
            let dest = dest.parse::<BindDest>();
            let dest = dest.map_err(|error| refused(&error.to_string()))?;
            let source =
                fs::canonicalize(src).map_err(|error| refused(&told(src.as_ref(), &error)))?;
            if source != Path::new(src) {
                return Err(refused(&format!("{src} is not what it was")));
            }
            LiveBind::new(source, dest).map_err(|reason| refused(&reason))
        });
        let binds = binds.collect::<Result<_>>()?;
        Ok(Self { binds })
    }
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn refused(reason: &str) -> RuntimeError {
    RuntimeError::LiveLayer {
        reason: format!("the record of the runtime cannot be used: {reason}"),
    }
}

/// All that is shown, in order.
///
/// # Errors
/// It is too much.
pub(crate) fn binds(layers: &[LiveLayer]) -> Result<Vec<LiveBind>> {
    let binds = layers.iter().flat_map(|layer| layer.binds.clone());
    let binds: Vec<_> = binds.collect();
    match binds.len() {
        0..=MAX_BINDS => Ok(binds),
        _ => Err(RuntimeError::LiveLayer {
            reason: format!("no more than {MAX_BINDS} files and directories can be shown"),
        }),
    }
}

/// Those of `binds` that are in no other one that comes before: what is mounted there has the
/// others within.
fn outermost(binds: &[LiveBind]) -> Vec<&LiveBind> {
    let mut found: Vec<&LiveBind> = Vec::new();
    for bind in binds {
        if !found.iter().any(|outer| is_within(&bind.dest, &outer.dest)) {
            found.push(bind);
        }
    }
    found
}

/// Whether `inner` is `outer` or below it.
fn is_within(inner: &BindDest, outer: &BindDest) -> bool {
    inner.names().starts_with(outer.names())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binds(dests: &[&str]) -> Vec<LiveBind> {
        let bind = |dest: &&str| LiveBind {
            source: "/".into(),
            is_directory: true,
            dest: dest.parse().unwrap(),
        };
        dests.iter().map(bind).collect()
    }

    #[test]
    fn what_is_within_another_goes_with_it() {
        for (all, expected) in [
            (&["a", "b"][..], &["a", "b"][..]),
            (&["a", "a/b", "ab"], &["a", "ab"]),
            (&["a/b", "a", "a"], &["a/b", "a"]),
        ] {
            let all = binds(all);
            let outermost = outermost(&all).into_iter();
            let found: Vec<_> = outermost.map(|bind| bind.dest.as_str()).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        fs::write(base.join("file"), "").unwrap();
        let bind =
            |source: &Path, dest: &str| LiveBind::new(source.to_owned(), dest.parse().unwrap());
        let layer = LiveLayer {
            binds: vec![
                bind(&base, "a/b").unwrap(),
                bind(&base.join("file"), "/spfs/c").unwrap(),
            ],
        };
        let value = layer.to_record();
        let expected = json!({"api": "spfs/v0/livelayer", "contents": [
            {"src": base.to_str().unwrap(), "dest": "a/b"},
            {"src": base.join("file").to_str().unwrap(), "dest": "/spfs/c"},
        ]});
        assert_eq!(value, expected);
        assert_eq!(LiveLayer::of_record(&value).unwrap(), layer);
        assert!(bind(Path::new("/dev/null"), "a").is_err());

        std::os::unix::fs::symlink(&base, base.join("link")).unwrap();
        let of = |src: &str, dest: &str| {
            let src = base.join(src);
            let contents = json!([{ "src": src.to_str().unwrap(), "dest": dest }]);
            LiveLayer::of_record(&json!({ "contents": contents })).is_ok()
        };
        assert!(of("file", "a") && !of("file", "../a") && !of("none", "a") && !of("link", "a"));
        for strange in [json!(null), json!([]), json!({"contents": [{"src": 1}]})] {
            assert!(LiveLayer::of_record(&strange).is_err(), "{strange}");
        }
    }
}
