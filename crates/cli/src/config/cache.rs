//! The disk tier of the block cache, as it is configured.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Blocks kept on the disk, for every mount of this user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CacheConfig {
    /// Whether there is one at all.
    pub(crate) enabled: bool,
    /// Where it is; nowhere for a user without a home.
    pub(crate) directory: Option<PathBuf>,
    /// The most it may take on the disk.
    pub(crate) disk_cache_max_bytes: u64,
    /// The share of the file system that it leaves free.
    pub(crate) disk_cache_keep_free: Percent,
}

impl CacheConfig {
    /// The default: `farseek` in the user's directory for caches.
    pub(super) fn default_in(caches: Option<&Path>) -> Self {
        Self {
            enabled: true,
            directory: caches.map(|caches| caches.join("farseek")),
            disk_cache_max_bytes: 10 << 30,
            disk_cache_keep_free: Percent(5),
        }
    }

    /// Where the tier is, unless it is turned off.
    pub(crate) fn place(&self) -> Option<&Path> {
        let is_on = self.enabled && self.disk_cache_max_bytes > 0;
        self.directory.as_deref().filter(|_| is_on)
    }
}

/// A share: `5%`, `5` or the number 5. At most 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub(crate) struct Percent(pub(crate) u8);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim();
        let number = number.strip_suffix('%').unwrap_or(number);
        let share = number.trim_end().parse().ok().filter(|share| *share <= 100);
        let share = share.ok_or_else(|| format!("'{text}' is not a share: write 0% to 100%"))?;
        Ok(Self(share))
    }
}

impl TryFrom<Written> for Percent {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(number) => number.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> Self {
        percent.to_string()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_in_several_ways() {
        let table = [
            ("5", Some(5)),
            ("\"5%\"", Some(5)),
            ("\" 5 % \"", Some(5)),
            ("\"0\"", Some(0)),
            ("100", Some(100)),
            ("101", None),
            ("-1", None),
            ("\"much\"", None),
            ("2.5", None),
        ];
        for (text, expected) in table {
            let read: Option<Percent> = serde_json::from_str(text).ok();
            assert_eq!(read.map(|percent| percent.0), expected, "{text}");
        }
        assert_eq!(serde_json::to_string(&Percent(5)).unwrap(), "\"5%\"");
    }
}
