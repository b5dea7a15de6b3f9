//! Annotations: keys and values of layers, given to a commit and looked up again (FORMAT.md
//! section 5.5).

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use farseek_object::{Annotation, AnnotationValue, Digest, Layer, Object, ObjectError};
use farseek_store::{PutOptions, Repository};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::app::App;
use crate::commands::write::store_blob;
use crate::exit::Failure;

/// No value that is shown is larger.
const VALUE_MAX_BYTES: u64 = 64 << 20;

/// No file of annotations is larger.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Objects in one stack: far above any real environment, low enough to end a hostile one.
const MAX_OBJECTS: usize = 65_536;

/// What a commit says of its layer.
#[derive(Debug, Default, Args)]
pub(crate) struct AnnotationArgs {
    /// Attach this to the layer; of a key that is given twice the last value counts. May also be
    /// a JSON object
    #[arg(long = "annotation", value_name = "KEY=VALUE|KEY:VALUE")]
    annotations: Vec<String>,
    /// Attach what this file says: a JSON object, or a line for each `KEY: VALUE`. Those of the
    /// command line count more
    #[arg(long = "annotation-file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl AnnotationArgs {
    /// What was given, in order, each key once.
    pub(crate) fn read(&self) -> Result<Vec<(String, String)>> {
        let mut pairs = Vec::new();
        for file in &self.files {
            let text = read_file(file)?;
            let parsed = parse_file(&text).map_err(Failure::usage);
            pairs.extend(parsed.with_context(|| format!("cannot use {}", file.display()))?);
        }
        for text in &self.annotations {
            pairs.extend(parse(text).map_err(Failure::usage)?);
        }
        Ok(last_of_each(pairs))
    }
}

fn read_file(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map(|metadata| metadata.len());
    if size.is_ok_and(|size| size > FILE_MAX_BYTES) {
        let path = path.display();
        return Err(Failure::usage(format!("{path} is larger than 64 MiB")));
    }
    let text = std::fs::read_to_string(path);
    text.with_context(|| format!("cannot read {}", path.display()))
}

/// `KEY=VALUE`, `KEY:VALUE` or a JSON object.
fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    if text.trim_start().starts_with('{') {
        return parse_json(text);
    }
    let (key, value) = text
        .split_once(['=', ':'])
        .filter(|(key, _)| !key.trim().is_empty())
        .ok_or_else(|| format!("'{text}' is no annotation: write KEY=VALUE"))?;
    Ok(vec![(key.trim().to_owned(), value.to_owned())])
}

fn parse_json(text: &str) -> Result<Vec<(String, String)>, String> {
    let table: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))?;
    let plain = |(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Object(_) | Value::Array(_) | Value::Null => Err(format!(
            "the value of '{key}' is not a text, a number or a boolean"
        )),
        value => Ok((key, value.to_string())),
    };
    table.into_iter().map(plain).collect()
}

/// A JSON object, or flat lines as YAML has them.
fn parse_file(text: &str) -> Result<Vec<(String, String)>, String> {
    if text.trim_start().starts_with('{') {
        return parse_json(text);
    }
    let mut pairs = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---" {
            continue;
        }
        let of_line = |reason: &str| format!("line {number} {reason}");
        if line.starts_with([' ', '\t', '-']) {
            return Err(of_line("is nested: a value is one line"));
        }
        let (key, value) = line
            .split_once(['=', ':'])
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| of_line("is not KEY: VALUE"))?;
        let value = unquoted(value.trim()).map_err(of_line)?;
        pairs.push((key.trim().to_owned(), value));
    }
    Ok(pairs)
}

/// `"a \n"`, `'a'`, or the text itself.
fn unquoted(text: &str) -> Result<String, &'static str> {
    if text.starts_with('"') {
        return serde_json::from_str(text).map_err(|_| "has a quotation that does not end well");
    }
    match text.strip_prefix('\'') {
        None => Ok(text.to_owned()),
        Some(rest) => rest
            .strip_suffix('\'')
            .map(|inner| inner.replace("''", "'"))
            .ok_or("has a quotation that does not end"),
    }
}

fn last_of_each(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    let mut kept: Vec<_> = pairs
        .into_iter()
        .rev()
        .filter(|(key, _)| seen.insert(key.clone()))
        .collect();
    kept.reverse();
    kept
}

/// Stores what is too large to stand in a layer, and gives the annotations that can.
pub(crate) async fn store(
    app: &App,
    repository: &dyn Repository,
    pairs: Vec<(String, String)>,
) -> Result<Vec<Annotation>> {
    let limit = app.config.filesystem.annotation_size_limit;
    let mut annotations = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let value = match value.len() as u64 > limit {
            false => AnnotationValue::Text(value),
            true => {
                let body = stream::iter([Ok(Bytes::from(value))]).boxed();
                let (digest, _) = store_blob(app, repository, body).await?;
                AnnotationValue::Blob(digest)
            }
        };
        annotations.push(Annotation { key, value });
    }
    Ok(annotations)
}

/// Stores a layer for each annotation that a runtime is to have, and gives them, bottom first. The
/// last comes first: of one key the lowest layer's is found.
pub(crate) async fn store_layers(
    app: &App,
    repository: &dyn Repository,
    pairs: Vec<(String, String)>,
) -> Result<Vec<Digest>> {
    let annotations = store(app, repository, pairs).await?;
    let mut layers = Vec::with_capacity(annotations.len());
    for annotation in annotations.into_iter().rev() {
        let layer = Object::Layer(Layer::new(app.header(), None, vec![annotation])?);
        let put = PutOptions::default();
        layers.push(repository.put_object(&layer, put).await?);
    }
    Ok(layers)
}

/// What `info` is asked of annotations.
#[derive(Debug, Default, Args)]
pub(crate) struct AnnotationViewArgs {
    /// Show the value of this annotation only: that of the lowest layer that has it. May be given
    /// several times
    #[arg(long, value_name = "KEY", visible_alias = "annotation")]
    pub(crate) get: Vec<String>,
    /// Show all annotations only; of one key the highest layer's
    #[arg(long, visible_alias = "all-annotations", conflicts_with = "get")]
    pub(crate) get_all: bool,
}

impl AnnotationViewArgs {
    /// Whether annotations are all that is asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.get_all || !self.get.is_empty()
    }

    /// The keys and values asked for of the stack `roots`, bottom first.
    ///
    /// # Errors
    /// A key that no layer has.
    pub(crate) async fn find(
        &self,
        repository: &dyn Repository,
        roots: &[Digest],
        reference: &str,
    ) -> Result<Vec<(String, String)>> {
        let layers = layers(repository, roots).await?;
        let annotations = || layers.iter().flat_map(|layer| layer.annotations());
        let mut chosen: Vec<&Annotation> = Vec::new();
        if self.get_all {
            let mut all = BTreeMap::new();
            all.extend(annotations().map(|annotation| (&annotation.key, annotation)));
            chosen.extend(all.into_values());
        }
        for key in &self.get {
            let found = annotations().find(|annotation| annotation.key == *key);
            chosen.push(found.ok_or_else(|| {
                Failure::not_found(format!("'{reference}' has no annotation '{key}'"))
            })?);
        }
        let mut pairs = Vec::with_capacity(chosen.len());
        for annotation in chosen {
            let value = match &annotation.value {
                AnnotationValue::Text(text) => text.clone(),
                AnnotationValue::Blob(digest) => blob(repository, digest).await?,
            };
            pairs.push((annotation.key.clone(), value));
        }
        Ok(pairs)
    }
}

/// The layers of a stack, bottom first, each once.
async fn layers(repository: &dyn Repository, roots: &[Digest]) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let mut seen = HashSet::new();
    let mut pending: Vec<Digest> = roots.iter().rev().copied().collect();
    while let Some(digest) = pending.pop() {
        if !seen.insert(digest) {
            continue;
        }
        if seen.len() > MAX_OBJECTS {
            let message = format!("a stack of more than {MAX_OBJECTS} objects is not believed");
            return Err(Failure::error(crate::exit::Code::Corrupt, message));
        }
        match repository.get_object(&digest).await? {
            Object::Layer(layer) => layers.push(layer),
            Object::Platform(platform) => pending.extend(platform.layers.iter().rev()),
            Object::Manifest(_) | Object::Blob(_) => {}
        }
    }
    Ok(layers)
}

/// The value that is the payload `digest`, checked.
async fn blob(repository: &dyn Repository, digest: &Digest) -> Result<String> {
    let mut body = repository.get_payload(digest, 0..u64::MAX).await?.body;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.try_next().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > VALUE_MAX_BYTES {
            return Err(Failure::usage(format!(
                "the annotation in {digest} is larger than 64 MiB: `farseek cat {digest}` prints it"
            )));
        }
    }
    let actual = Digest::of(&bytes);
    if actual != *digest {
        let expected = *digest;
        return Err(ObjectError::WrongDigest { expected, actual }.into());
    }
    String::from_utf8(bytes).with_context(|| format!("the annotation in {digest} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn annotations_of_the_command_line() {
        for (text, expected) in [
            ("a=b", &[("a", "b")][..]),
            ("a:b", &[("a", "b")]),
            ("url=http://h/x", &[("url", "http://h/x")]),
            ("url:http://h/x?y=1", &[("url", "http://h/x?y=1")]),
            ("empty=", &[("empty", "")]),
            (r#"{"a": "b", "n": 1}"#, &[("a", "b"), ("n", "1")]),
        ] {
            assert_eq!(parse(text), Ok(pairs(expected)), "{text}");
        }
        for bad in ["", "a", "=b", " :b", "{", r#"{"a": []}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_of_a_file() {
        let text = "---\n# a comment\na: b\n\nc = 'it''s'\nd: \"two\\nlines\"\n";
        let expected = pairs(&[("a", "b"), ("c", "it's"), ("d", "two\nlines")]);
        assert_eq!(parse_file(text), Ok(expected));
        assert_eq!(parse_file(r#"{"a": true}"#), Ok(pairs(&[("a", "true")])));
        for (bad, said) in [
            ("a:\n  b: c", "line 2 is nested"),
            ("a: b\nc", "line 2 is not KEY: VALUE"),
            ("a: 'b", "line 1 has a quotation"),
        ] {
            assert!(parse_file(bad).unwrap_err().contains(said), "{bad}");
        }
    }

    #[test]
    fn the_last_of_a_key_counts() {
        let given = pairs(&[("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(last_of_each(given), pairs(&[("b", "2"), ("a", "3")]));
    }
}
