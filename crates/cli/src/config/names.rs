//! Words that values are chosen from.

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize};

/// SPFS's names of the digest strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum StrategyName {
    /// The hash of the canonical bytes alone.
    Legacy,
    /// Salted and told apart by kind.
    WithKindAndSalt,
}

/// SPFS's names of the encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum FormatName {
    /// Big-endian integers and NUL-terminated strings.
    Legacy,
    /// A FlatBuffer.
    FlatBuffers,
}

/// When payloads are checked against their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerifyName {
    /// Small ones before their first byte is served, large ones once all of them is there
    Auto,
    /// Every one before its first byte is served, however large
    Strict,
    /// Never
    Off,
}

/// When payloads become payloads of the local repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PromoteName {
    /// Once all of it has been read and is verified
    Complete,
    /// Once somebody jumps about in it: the rest is then fetched
    OnSeek,
    /// Never
    Never,
}

/// A value that is read whatever the case it is written in, as SPFS does.
pub(super) trait AnyCase: Sized + 'static {
    const NAMES: &'static [(&'static str, Self)];
}

impl AnyCase for StrategyName {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("Legacy", Self::Legacy),
        ("WithKindAndSalt", Self::WithKindAndSalt),
    ];
}

impl AnyCase for FormatName {
    const NAMES: &'static [(&'static str, Self)] =
        &[("Legacy", Self::Legacy), ("FlatBuffers", Self::FlatBuffers)];
}

impl AnyCase for VerifyName {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("strict", Self::Strict),
        ("off", Self::Off),
    ];
}

impl AnyCase for PromoteName {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("complete", Self::Complete),
        ("on-seek", Self::OnSeek),
        ("never", Self::Never),
    ];
}

/// Reads one of the names of `T`.
pub(super) fn any_case<'de, D: Deserializer<'de>, T: AnyCase + Copy>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let found = T::NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = T::NAMES.iter().map(|(name, _)| *name).collect();
        serde::de::Error::custom(format!("'{text}' is none of {}", names.join(", ")))
    })
}
