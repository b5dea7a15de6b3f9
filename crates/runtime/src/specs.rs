//! Spec files read: an environment spec without any, and the live layers that it names.
//!
//! The items of a run spec take its place, and may name spec files themselves. A file is read once:
//! one that is named again, by itself or by others, is a mistake, and would never end. What a live
//! layer shows must be below the directory of its file, wherever links lead.
//!
//! Deliberately absent: mounting.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use farseek_object::{BindMount, EnvItem, EnvSpec, MAX_SPEC_FILE_BYTES, SpecFile};
use nix::fcntl::OFlag;

use crate::error::{Result, RuntimeError};
use crate::live::{LiveBind, LiveLayer, MAX_BINDS};

/// The spec file of a directory.
const IN_DIRECTORY: &str = "layer.spfs.yaml";

/// How the name of a spec file ends.
const ENDING: &str = ".spfs.yaml";

/// Run specs in one another.
const MAX_DEPTH: usize = 32;

/// Spec files in one environment.
const MAX_FILES: usize = 256;

/// Items of an environment once all are there.
const MAX_ITEMS: usize = 16_384;

/// An environment spec whose spec files have been read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// What has a digest: no item is a spec file.
    pub spec: EnvSpec,
    /// What has none, in order, with the file of each.
    pub live: Vec<(PathBuf, LiveLayer)>,
    /// What was ignored in which file.
    pub ignored: Vec<(PathBuf, String)>,
}

impl Expanded {
    /// The live layers, in order.
    pub fn live_layers(&self) -> Vec<LiveLayer> {
        self.live.iter().map(|(_, layer)| layer.clone()).collect()
    }
}

/// Reads the spec files of `spec`.
///
/// # Errors
/// `SpecFile`: one cannot be read or understood, or is named twice.
pub fn expand(spec: &EnvSpec) -> Result<Expanded> {
    let mut reading = Reading::default();
    reading.items(&spec.items, 0)?;
    Ok(reading.expanded)
}

#[derive(Default)]
struct Reading {
    expanded: Expanded,
    seen: HashSet<PathBuf>,
    binds: usize,
}

impl Reading {
    fn items(&mut self, items: &[EnvItem], depth: usize) -> Result<()> {
        for item in items {
            match item {
                EnvItem::SpecFile(path) => {
                    let read = self.file(path, depth);
                    read.map_err(|error| error.of(path))?;
                }
                item => self.expanded.spec.items.push(item.clone()),
            }
        }
        Ok(())
    }

    fn file(&mut self, named: &Path, depth: usize) -> Result<(), Why> {
        let path = find(named)?;
        if !self.seen.insert(path.clone()) {
            return Err("it is named twice, and may be read once".into());
        }
        if self.seen.len() > MAX_FILES || depth > MAX_DEPTH {
            return Err(format!(
                "more than {MAX_FILES} spec files, or {MAX_DEPTH} in one another, are not believed"
            )
            .into());
        }
        let parsed = SpecFile::parse(&read(&path)?).map_err(|error| error.to_string())?;
        let ignored = parsed.ignored.into_iter();
        let told = ignored.map(|reason| (path.clone(), reason));
        self.expanded.ignored.extend(told);
        match parsed.file {
            SpecFile::LiveLayer(mounts) => self.live_layer(path, mounts)?,
            SpecFile::RunSpec(items) => {
                if self.expanded.spec.items.len() + items.len() > MAX_ITEMS {
                    return Err(format!("more than {MAX_ITEMS} layers are not believed").into());
                }
                self.items(&items, depth + 1)?;
            }
        }
        Ok(())
    }

    fn live_layer(&mut self, path: PathBuf, mounts: Vec<BindMount>) -> Result<(), Why> {
        self.binds += mounts.len();
        if self.binds > MAX_BINDS {
            return Err(
                format!("no more than {MAX_BINDS} files and directories can be shown").into(),
            );
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let binds = mounts.into_iter().map(|mount| {
            let source = source(directory, &mount.src)?;
            LiveBind::new(source, mount.dest)
        });
        let binds = binds.collect::<Result<_, _>>()?;
        self.expanded.live.push((path, LiveLayer { binds }));
        Ok(())
    }
}

/// Why a file cannot be used, or one that it names.
enum Why {
    Itself(String),
    Another(RuntimeError),
}

impl Why {
    fn of(self, path: &Path) -> RuntimeError {
        match self {
            Self::Itself(reason) => RuntimeError::SpecFile {
                path: path.to_owned(),
                reason,
            },
            Self::Another(error) => error,
        }
    }
}

impl From<String> for Why {
    fn from(reason: String) -> Self {
        Self::Itself(reason)
    }
}

impl From<&str> for Why {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        error.to_string().into()
    }
}

impl From<RuntimeError> for Why {
    fn from(error: RuntimeError) -> Self {
        Self::Another(error)
    }
}

/// The file that `named` means, without links: two names of one file are that file.
fn find(named: &Path) -> Result<PathBuf, Why> {
    if !named.is_absolute() {
        return Err("its path is not absolute".into());
    }
    let found = match fs::metadata(named)?.is_dir() {
        true => named.join(IN_DIRECTORY),
        false if named.to_string_lossy().ends_with(ENDING) => named.to_owned(),
        false => return Err(format!("its name does not end in {ENDING}").into()),
    };
    let path = fs::canonicalize(&found);
    path.map_err(|error| match found == named {
        true => error.into(),
        false => format!("{IN_DIRECTORY} in it: {error}").into(),
    })
}

/// The text of a file, if it is one: a pipe may have nothing to say for ever.
fn read(path: &Path) -> Result<String, Why> {
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err("it is no file".into());
    }
    let mut bytes = Vec::new();
    let most = MAX_SPEC_FILE_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == most {
        return Err(format!("it is larger than {MAX_SPEC_FILE_BYTES} bytes").into());
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

/// What `src` means in a file of `directory`, without links.
fn source(directory: &Path, src: &str) -> Result<PathBuf, String> {
    let source = fs::canonicalize(directory.join(src));
    let source = source.map_err(|error| format!("src '{src}': {error}"))?;
    let (shown, within) = (source.display(), directory.display());
    if !source.starts_with(directory) {
        return Err(format!(
            "src '{src}' is {shown}, which is outside of {within}: only what is in there can be shown"
        ));
    }
    match source.to_str() {
        Some(_) => Ok(source),
        None => Err(format!("src '{src}' is {shown}, whose name is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory without links on the way.
    struct Place {
        _base: tempfile::TempDir,
        path: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            let path = base.path().canonicalize().unwrap();
            Self { _base: base, path }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.replace("HERE", self.path.to_str().unwrap())).unwrap();
            path
        }

        fn expand(&self, spec: &str) -> Result<Expanded, String> {
            let spec = spec.replace("HERE", self.path.to_str().unwrap());
            expand(&spec.parse().unwrap()).map_err(|error| error.to_string())
        }

        fn refused(&self, spec: &str, said: &str) {
            let error = self.expand(spec).unwrap_err();
            assert!(error.contains(said), "{spec}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn items_of_run_specs_take_their_place() {
        let place = Place::new();
        place.write(
            "a.spfs.yaml",
            "api: spfs/v0/runspec\nlayers: [one, HERE/b, two]\n",
        );
        place.write(
            "b/layer.spfs.yaml",
            "api: spfs/v0/runspec\nlayers: [three, HERE/c]\nx: 1\n",
        );
        place.write(
            "c/layer.spfs.yaml",
            "contents: [{src: dir, dest: d}, {src: ./f, dest: e}]\n",
        );
        place.write("c/dir/x", "");
        place.write("c/f", "");
        let expanded = place.expand("zero+HERE/a.spfs.yaml+four").unwrap();
        assert_eq!(expanded.spec.to_string(), "zero+one+three+two+four");
        let [(path, layer)] = &expanded.live[..] else {
            panic!("one live layer");
        };
        assert_eq!(path, &place.path.join("c/layer.spfs.yaml"));
        let shown: Vec<_> = layer
            .binds
            .iter()
            .map(|b| (&*b.source, b.is_directory))
            .collect();
        assert_eq!(
            shown,
            [
                (&*place.path.join("c/dir"), true),
                (&*place.path.join("c/f"), false)
            ]
        );
        let (path, reason) = &expanded.ignored[0];
        assert_eq!(path, &place.path.join("b/layer.spfs.yaml"));
        assert_eq!(reason, "line 3: the field 'x' is not known, and ignored");
        assert_eq!(place.expand("-").unwrap(), Expanded::default());
    }

    #[test]
    fn a_file_is_read_once() {
        let place = Place::new();
        let run = "api: spfs/v0/runspec\nlayers: ";
        place.write("self.spfs.yaml", &format!("{run}[HERE/self.spfs.yaml]"));
        place.write("a/layer.spfs.yaml", &format!("{run}[HERE/b]"));
        place.write(
            "b/layer.spfs.yaml",
            &format!("{run}[HERE/./link/layer.spfs.yaml]"),
        );
        place.write("c/layer.spfs.yaml", &format!("{run}[one]"));
        symlink("a", place.path.join("link")).unwrap();
        place.refused("HERE/self.spfs.yaml", "self.spfs.yaml: it is named twice");
        place.refused("HERE/a", "it is named twice");
        place.refused("HERE/c+HERE/c", "it is named twice");
        place.refused("HERE/c+HERE/c/layer.spfs.yaml", "it is named twice");
        for n in 0..100 {
            place.write(
                &format!("deep/{n}.spfs.yaml"),
                &format!("{run}[HERE/deep/{}.spfs.yaml]", n + 1),
            );
        }
        place.refused("HERE/deep/0.spfs.yaml", "in one another");
    }

    #[test]
    fn only_spec_files_are_read() {
        let place = Place::new();
        place.write("other.yaml", "");
        place.write("bad.spfs.yaml", "a: [");
        place.write("empty/file", "");
        fs::write(place.path.join("bytes.spfs.yaml"), b"\xff").unwrap();
        fs::write(
            place.path.join("long.spfs.yaml"),
            vec![b' '; MAX_SPEC_FILE_BYTES + 1],
        )
        .unwrap();
        let pipe = place.path.join("pipe.spfs.yaml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir_all(place.path.join("dir/layer.spfs.yaml")).unwrap();
        for (spec, said) in [
            ("HERE/none", "No such file"),
            ("HERE/empty", "layer.spfs.yaml in it: No such file"),
            ("HERE/other.yaml", "does not end in .spfs.yaml"),
            (
                "HERE/bad.spfs.yaml",
                "bad.spfs.yaml: malformed spec file: line",
            ),
            ("HERE/bytes.spfs.yaml", "not UTF-8"),
            ("HERE/long.spfs.yaml", "is larger than"),
            ("HERE/pipe.spfs.yaml", "is no file"),
            ("HERE/dir", "is no file"),
        ] {
            place.refused(spec, said);
        }
    }

    #[test]
    fn what_is_shown_is_below_the_directory_of_the_file() {
        let place = Place::new();
        place.write("outside/secret", "");
        let layer = |src: &str| {
            let text = format!("contents: [{{src: {src}, dest: d}}]");
            place.write("l/layer.spfs.yaml", &text);
        };
        place.write("l/in/file", "");
        symlink("../outside", place.path.join("l/out")).unwrap();
        symlink("in", place.path.join("l/link")).unwrap();
        for src in [
            "../outside",
            "out",
            "out/secret",
            "/etc",
            "in/../../outside",
            "..",
        ] {
            layer(src);
            place.refused("HERE/l", "outside of");
        }
        layer("none");
        place.refused("HERE/l", "src 'none': No such file");
        for (src, source) in [
            ("link/file", "l/in/file"),
            (".", "l"),
            ("HERE/l/in", "l/in"),
        ] {
            layer(src);
            let expanded = place.expand("HERE/l").unwrap();
            assert_eq!(expanded.live[0].1.binds[0].source, place.path.join(source));
        }
        let many = "- {src: in, dest: d}\n".repeat(MAX_BINDS + 1);
        place.write("l/layer.spfs.yaml", &format!("contents:\n{many}"));
        place.refused("HERE/l", "no more than");
    }
}
