//! Spec files: what an item of an environment spec may name by a path (FORMAT.md section 5.3).
//!
//! A file says what it is in its field `api`. A *run spec* lists items of an environment spec,
//! which take its place. A *live layer* lists files and directories beside it that are to be shown
//! in the environment as they are on the host; it has no digest. Fields that nobody knows are
//! ignored, as SPFS does, and told.
//!
//! Deliberately absent: reading files, and whether what is named in them is there.

use std::fmt;
use std::str::FromStr;

use crate::env_spec::EnvItem;
use crate::error::{ObjectError, Result};
use crate::yaml::{self, Fault, Node, Value};

/// No spec file is longer.
pub const MAX_SPEC_FILE_BYTES: usize = 1 << 20;

/// Fields that nobody knows of which each is told.
const MAX_IGNORED_TOLD: usize = 20;

/// Directories of a `dest` in one another.
const MAX_DEST_DEPTH: usize = 128;

/// Characters of a `dest`: as many as a path may have.
const MAX_DEST_LEN: usize = 4095;

/// Where SPFS has the environment. A `dest` may begin with it, wherever the environment is.
const ROOT: &str = "/spfs/";

/// What a spec file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecFile {
    /// Files and directories of the host that are shown.
    LiveLayer(Vec<BindMount>),
    /// Items that stand for it.
    RunSpec(Vec<EnvItem>),
}

/// A file or directory that is shown in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// Which, from the directory that the spec file is in.
    pub src: String,
    /// Where.
    pub dest: BindDest,
}

/// A path within an environment: not its root, and without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindDest {
    text: String,
    names: Vec<String>,
}

/// A spec file, with what was ignored in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedSpecFile {
    /// What it says.
    pub file: SpecFile,
    /// What nobody knows, one sentence each; of very many, the first ones and how many more there are.
    pub ignored: Vec<String>,
}

impl BindDest {
    /// The names from the root of the environment; one at least.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The path from the root of the environment.
    pub fn relative(&self) -> String {
        self.names.join("/")
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for BindDest {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |reason| ObjectError::InvalidSpec {
            what: "path in an environment",
            text: text.to_owned(),
            reason,
        };
        let relative = text.strip_prefix(ROOT).unwrap_or(text);
        if relative.starts_with('/') {
            return Err(refused("it is relative to /spfs, or begins with /spfs/"));
        }
        if text.len() > MAX_DEST_LEN || text.contains('\0') {
            return Err(refused("no file can have it"));
        }
        let names = relative
            .split('/')
            .filter(|name| !matches!(*name, "" | "."));
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names.iter().any(|name| name == "..") {
            return Err(refused("'..' leads out of the environment"));
        }
        match names.len() {
            0 => Err(refused("it is the environment itself")),
            1..=MAX_DEST_DEPTH => Ok(Self {
                text: text.to_owned(),
                names,
            }),
            _ => Err(refused("it is too deep")),
        }
    }
}

impl fmt::Display for BindDest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl SpecFile {
    /// Reads the text of a spec file.
    ///
    /// # Errors
    /// `Malformed`, which names the line, or `TooLarge`.
    pub fn parse(text: &str) -> Result<ParsedSpecFile> {
        if text.len() > MAX_SPEC_FILE_BYTES {
            return Err(ObjectError::TooLarge {
                what: "the size of a spec file",
                limit: MAX_SPEC_FILE_BYTES as u64,
            });
        }
        read(text).map_err(|Fault { line, reason }| {
            ObjectError::malformed("spec file", format!("line {line}: {reason}"))
        })
    }
}

/// What a file can be.
enum Api {
    LiveLayer,
    RunSpec,
}

impl Api {
    fn named(name: &str) -> Option<Self> {
        match name {
            "spfs/v0/livelayer" | "v0/livelayer" | "v0/layer" => Some(Self::LiveLayer),
            "spfs/v0/runspec" => Some(Self::RunSpec),
            _ => None,
        }
    }
}

fn read(text: &str) -> Result<ParsedSpecFile, Fault> {
    let mut fields = Fields::of(yaml::parse(text)?, "a spec file")?;
    let api = match fields.take(&["api"])? {
        None => Api::LiveLayer,
        Some(node) => {
            let line = node.line;
            let name = into_text(node, "api")?;
            Api::named(&name).ok_or_else(|| {
                let known = "spfs/v0/livelayer and spfs/v0/runspec";
                let name = yaml::shortened(&name);
                fault(line, format!("the api '{name}' is not known: {known} are"))
            })?
        }
    };
    let mut ignored = Ignored::default();
    let file = match api {
        Api::LiveLayer => {
            let contents = fields.require(&["contents"])?;
            ignored.add(fields);
            let items = into_list(contents, "contents")?.into_iter();
            let mounts = items.map(|item| bind_mount(item, &mut ignored));
            SpecFile::LiveLayer(mounts.collect::<Result<_, _>>()?)
        }
        Api::RunSpec => {
            let layers = into_list(fields.require(&["layers"])?, "layers")?;
            ignored.add(fields);
            let items = layers.into_iter().map(item);
            SpecFile::RunSpec(items.collect::<Result<_, _>>()?)
        }
    };
    Ok(ParsedSpecFile {
        file,
        ignored: ignored.told(),
    })
}

fn bind_mount(node: Node, ignored: &mut Ignored) -> Result<BindMount, Fault> {
    let mut fields = Fields::of(node, "an item of contents")?;
    let src = fields.require(&["src", "bind"])?;
    let line = src.line;
    let src = into_text(src, "src")?;
    if src.is_empty() || src.contains('\0') {
        return Err(fault(line, "src is not a path"));
    }
    let dest = fields.require(&["dest"])?;
    let line = dest.line;
    let dest = into_text(dest, "dest")?.parse();
    let dest = dest.map_err(|error: ObjectError| fault(line, format!("dest: {error}")))?;
    ignored.add(fields);
    Ok(BindMount { src, dest })
}

fn item(node: Node) -> Result<EnvItem, Fault> {
    let line = node.line;
    let text = into_text(node, "an item of layers")?;
    let item = text.parse();
    item.map_err(|error: ObjectError| fault(line, error.to_string()))
}

fn fault(line: usize, reason: impl Into<String>) -> Fault {
    let reason = reason.into();
    Fault { line, reason }
}

fn into_text(node: Node, what: &str) -> Result<String, Fault> {
    match node.value {
        Value::Text(text) => Ok(text),
        Value::Null => Err(fault(node.line, format!("{what} is empty"))),
        _ => Err(fault(node.line, format!("{what} is not a text"))),
    }
}

fn into_list(node: Node, what: &str) -> Result<Vec<Node>, Fault> {
    match node.value {
        Value::List(list) => Ok(list),
        _ => Err(fault(node.line, format!("{what} is not a list"))),
    }
}

/// The fields of a table that have not been read yet.
struct Fields {
    what: &'static str,
    line: usize,
    rest: Vec<(yaml::Key, Node)>,
}

impl Fields {
    fn of(node: Node, what: &'static str) -> Result<Self, Fault> {
        let line = node.line;
        match node.value {
            Value::Table(rest) => Ok(Self { what, line, rest }),
            Value::Null => Err(fault(line, format!("{what} is empty"))),
            _ => Err(fault(line, format!("{what} is not made of 'name: value'"))),
        }
    }

    /// The value of the field that has one of these names.
    fn take(&mut self, names: &[&str]) -> Result<Option<Node>, Fault> {
        let is_meant = |(key, _): &(yaml::Key, Node)| names.contains(&key.name.as_str());
        let Some(at) = self.rest.iter().position(is_meant) else {
            return Ok(None);
        };
        let (key, node) = self.rest.remove(at);
        match self.rest.iter().find(|field| is_meant(field)) {
            None => Ok(Some(node)),
            Some((other, _)) => Err(fault(
                other.line,
                format!("'{}' and '{}' are the same: give one", key.name, other.name),
            )),
        }
    }

    fn require(&mut self, names: &[&str]) -> Result<Node, Fault> {
        let (line, what) = (self.line, self.what);
        let found = self.take(names)?;
        found.ok_or_else(|| fault(line, format!("{what} has no '{}'", names[0])))
    }
}

/// Fields that nobody knows.
#[derive(Debug, Default)]
struct Ignored {
    /// The first of them.
    first: Vec<yaml::Key>,
    count: usize,
}

impl Ignored {
    /// Those of `fields` that were not read.
    fn add(&mut self, fields: Fields) {
        self.count += fields.rest.len();
        let room = MAX_IGNORED_TOLD - self.first.len();
        let keys = fields.rest.into_iter().map(|(key, _)| key);
        self.first.extend(keys.take(room));
    }

    fn told(self) -> Vec<String> {
        let more = self.count - self.first.len();
        let told = self.first.iter().map(|yaml::Key { line, name }| {
            let name = yaml::shortened(name);
            format!("line {line}: the field '{name}' is not known, and ignored")
        });
        let more = (more > 0).then(|| format!("{more} more fields are not known, and ignored"));
        told.chain(more).collect()
    }
}
