//! References and environment specs, as a person types them (FORMAT.md section 5).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::{Digest, DigestPrefix};
use crate::error::{ObjectError, Result};
use crate::tag::TagSpec;

/// One item of an environment spec, in the order SPFS tries the readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvItem {
    /// A full digest.
    Digest(Digest),
    /// An abbreviated digest, of at least one whole byte.
    Prefix(DigestPrefix),
    /// An absolute path of a spec file or of a directory that holds one.
    SpecFile(PathBuf),
    /// A tag.
    Tag(TagSpec),
}

impl FromStr for EnvItem {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        if let Ok(prefix) = text.parse::<DigestPrefix>() {
            return Ok(prefix.to_full().map_or(Self::Prefix(prefix), Self::Digest));
        }
        if text.starts_with('/') {
            return Ok(Self::SpecFile(text.into()));
        }
        let is_path = ["./", "../"].iter().any(|start| text.starts_with(start));
        text.parse().map(Self::Tag).map_err(|error| match is_path {
            true => ObjectError::InvalidSpec {
                what: "environment spec",
                text: text.to_owned(),
                reason: "a spec file is named by its absolute path, like /path/to/x.spfs.yaml",
            },
            false => error,
        })
    }
}

impl fmt::Display for EnvItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::SpecFile(path) => path.display().fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

/// `a+b+c`: items from the bottom of the stack to the top. `""` and `-` are the empty one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvSpec {
    /// Bottom first.
    pub items: Vec<EnvItem>,
}

impl FromStr for EnvSpec {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        if matches!(text, "" | "-") {
            return Ok(Self::default());
        }
        let items = text.split('+').map(|item| match item {
            "" => Err(ObjectError::InvalidSpec {
                what: "environment spec",
                text: text.to_owned(),
                reason: "an item between '+' signs is empty",
            }),
            item => item.parse(),
        });
        Ok(Self {
            items: items.collect::<Result<_>>()?,
        })
    }
}

impl fmt::Display for EnvSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            return f.write_str("-");
        }
        for (position, item) in self.items.iter().enumerate() {
            if position > 0 {
                f.write_str("+")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

/// A single reference: a tag where one exists, else a digest or a prefix of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The reading as a tag, tried first.
    pub tag: Option<TagSpec>,
    /// The reading as a digest, tried when there is no such tag.
    pub digest: Option<DigestPrefix>,
}

impl FromStr for Reference {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        let tag = text.parse::<TagSpec>();
        let digest = text.parse().ok();
        match (tag, digest) {
            (Err(error), None) => Err(error),
            (tag, digest) => Ok(Self {
                tag: tag.ok(),
                digest,
            }),
        }
    }
}
