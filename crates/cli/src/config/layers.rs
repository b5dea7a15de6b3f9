//! Where configuration comes from, lowest layer first, each as a JSON table.
//!
//! SPFS's own files and variables are read as SPFS reads them (FORMAT.md section 7), so that an
//! SPFS site works unchanged; whatever of them means nothing to us is ignored. Our own files and
//! variables follow, where an unknown key is a mistake that is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use config::FileFormat;
use serde_json::Value;

use super::keys::{self, KnownKeys};
use super::malformed;
use crate::environment::Environment;

/// Where a layer is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// Environment variables that start so.
    Variables(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variables(prefix) => write!(f, "the {prefix}* environment variables"),
        }
    }
}

/// One layer: keys that exist, their values already of the kind the key holds.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) source: Source,
    /// With dots, in order.
    pub(crate) values: Vec<(String, Value)>,
}

/// All layers that are there, lowest first.
pub(crate) fn read(environment: &Environment, known: &KnownKeys) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let config_dir = environment.config_dir();
    for base in [
        Some(environment.etc.join("spfs")),
        config_dir.as_ref().map(|d| d.join("spfs/spfs")),
    ]
    .into_iter()
    .flatten()
    {
        for (path, format) in spfs_files(&base) {
            layers.extend(read_spfs_file(&path, format, known)?);
        }
    }
    layers.push(spfs_variables(environment, known));
    let own_files = [
        Some(environment.etc.join("farseek.toml")),
        config_dir.map(|dir| dir.join("farseek/farseek.toml")),
    ];
    for path in own_files.into_iter().flatten() {
        layers.extend(read_own_file(&path, known)?);
    }
    layers.push(own_variables(environment, known)?);
    layers.retain(|layer| !layer.values.is_empty());
    Ok(layers)
}

/// SPFS reads `<base>.conf`, and then the first of the other forms that is there.
fn spfs_files(base: &Path) -> Vec<(PathBuf, FileFormat)> {
    let with = |extension: &str| PathBuf::from(format!("{}.{extension}", base.display()));
    let others = [
        ("toml", FileFormat::Toml),
        ("yaml", FileFormat::Yaml),
        ("yml", FileFormat::Yaml),
        ("json", FileFormat::Json),
        ("ini", FileFormat::Ini),
    ];
    let other = others
        .into_iter()
        .map(|(extension, format)| (with(extension), format))
        .find(|(path, _)| path.is_file());
    std::iter::once((with("conf"), FileFormat::Ini))
        .chain(other)
        .collect()
}

fn read_spfs_file(path: &Path, format: FileFormat, known: &KnownKeys) -> Result<Option<Layer>> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let table: Value = config::Config::builder()
        .add_source(config::File::from_str(&text, format))
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| {
            let what = malformed::spfs(&text, &error);
            let path = path.display();
            anyhow!("SPFS's configuration file {path} is malformed: {what}")
        })?;
    let values = keys::flatten(&table)
        .into_iter()
        .filter(|(key, _)| known.contains(key))
        .map(|(key, value)| {
            let value = known.coerce(&key, value);
            (key, value)
        });
    Ok(Some(Layer {
        source: Source::File(path.to_owned()),
        values: values.collect(),
    }))
}

/// First `SPFS_A__B`, then `SPFS_A_B`, which wins where both are set.
fn spfs_variables(environment: &Environment, known: &KnownKeys) -> Layer {
    let mut values = BTreeMap::new();
    for separator in ["__", "_"] {
        for (name, value) in &environment.variables {
            let Some(rest) = name.strip_prefix("SPFS_") else {
                continue;
            };
            let key = rest.to_ascii_lowercase().replace(separator, ".");
            // No variable of SPFS's can name a remote with a dot: its dots all part tables.
            let is_deep = key.starts_with("remote.") && key.matches('.').count() > 2;
            if known.contains(&key) && !is_deep {
                let value = known.coerce(&key, Value::String(value.clone()));
                values.insert(key, value);
            }
        }
    }
    Layer {
        source: Source::Variables("SPFS_"),
        values: values.into_iter().collect(),
    }
}

fn read_own_file(path: &Path, known: &KnownKeys) -> Result<Option<Layer>> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let table: toml::Table = text.parse().map_err(|error| {
        let what = malformed::toml(&text, &error);
        let path = path.display();
        anyhow!("the configuration file {path} is malformed: {what}")
    })?;
    let table = serde_json::to_value(table)
        .with_context(|| format!("the configuration file {} is malformed", path.display()))?;
    let mut values = Vec::new();
    for section in table.as_object().into_iter().flat_map(|table| table.keys()) {
        if !section.contains('.') && !known.has_section(section) {
            let nearest = known.nearest_section(section);
            bail!(
                "{}: unknown key '{section}': did you mean '{nearest}'?",
                path.display()
            );
        }
    }
    for (key, value) in keys::flatten(&table) {
        if !known.contains(&key) {
            let nearest = known.nearest(&key);
            bail!(
                "{}: unknown key '{key}': did you mean '{nearest}'?",
                path.display()
            );
        }
        let value = known.coerce(&key, value);
        values.push((key, value));
    }
    Ok(Some(Layer {
        source: Source::File(path.to_owned()),
        values,
    }))
}

/// `FARSEEK_` and a key with its dots as `_` or `__`; `FARSEEK_LOG` is short for `log.filter`.
fn own_variables(environment: &Environment, known: &KnownKeys) -> Result<Layer> {
    let mut values = BTreeMap::new();
    for (name, value) in &environment.variables {
        let Some(rest) = name.strip_prefix("FARSEEK_") else {
            continue;
        };
        let key = match rest {
            "LOG" => "log.filter".to_owned(),
            rest => own_key(rest, known).ok_or_else(|| {
                let nearest = known.nearest(&rest.to_ascii_lowercase().replacen('_', ".", 1));
                let nearest = nearest.to_ascii_uppercase().replace('.', "__");
                anyhow!(
                    "the environment variable {name} names no known key: \
                     did you mean FARSEEK_{nearest}?"
                )
            })?,
        };
        let value = known.coerce(&key, Value::String(value.clone()));
        values.insert(key, value);
    }
    Ok(Layer {
        source: Source::Variables("FARSEEK_"),
        values: values.into_iter().collect(),
    })
}

fn own_key(rest: &str, known: &KnownKeys) -> Option<String> {
    let rest = rest.to_ascii_lowercase();
    let dotted = rest.replace("__", ".");
    let flat = |key: &str| key.replace('.', "_");
    known.contains(&dotted).then_some(dotted).or_else(|| {
        let fixed = known
            .names()
            .find(|known| flat(known) == rest)
            .map(str::to_owned);
        // The name of a remote may hold a `_`; its field is known.
        fixed.or_else(|| {
            let remote = rest.strip_prefix("remote_")?;
            super::remote::REMOTE_KEYS.iter().find_map(|field| {
                let name = remote.strip_suffix(field)?.strip_suffix('_')?;
                (!name.is_empty()).then(|| format!("remote.{name}.{field}"))
            })
        })
    })
}

/// A file's text, or `None` where there is no such file.
fn read_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error)
            .with_context(|| format!("cannot read the configuration file {}", path.display())),
    }
}
