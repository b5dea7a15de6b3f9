//! `farseek info`.

use anyhow::Result;
use clap::Args;
use farseek_object::{
    AnnotationValue, Digest, EntryKind, Layer, Manifest, Object, Platform, Reference,
};
use farseek_store::{Repository, RepositoryExt as _};
use serde_json::{Value, json};

use crate::annotations::AnnotationViewArgs;
use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  farseek info tools/python
  farseek info tools/python~1 QZ6LL4L4T4 --remote origin
  farseek info tools/python --get-all --json";

/// `farseek info`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InfoArgs {
    /// Tags, digests or beginnings of digests
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Show sizes in KiB, MiB and so on
    #[arg(short = 'H', long)]
    human_readable: bool,
    #[command(flatten)]
    annotations: AnnotationViewArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Describes each reference.
pub(crate) async fn run(args: InfoArgs, app: &mut App) -> Result<()> {
    if args.references.is_empty() {
        return Err(Failure::usage(
            "say what to describe: a tag or a digest, as in `farseek info tools/python`; \
             `farseek tags` lists the tags there are",
        ));
    }
    let references: Vec<Reference> = args
        .references
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let mut list = Vec::new();
    for (reference, text) in references.iter().zip(&args.references) {
        let digest = repository.resolve(reference).await?;
        if args.annotations.is_asked() {
            let found = args.annotations.find(&*repository, &[digest], text).await?;
            match args.json.json {
                true => list.push(annotations_json(text, &digest, found)),
                false => show_annotations(&args.annotations, &found, app)?,
            }
            continue;
        }
        let object = repository.get_object(&digest).await?;
        if args.json.json {
            list.push(describe_json(text, &digest, &object, &*repository).await?);
        } else {
            for line in describe(&digest, &object, args.human_readable, &*repository).await? {
                app.output.line(line)?;
            }
        }
    }
    if args.json.json {
        app.output.json(&Value::Array(list))
    } else {
        Ok(())
    }
}

/// The value alone where one was asked for, else a line a key.
pub(super) fn show_annotations(
    args: &AnnotationViewArgs,
    found: &[(String, String)],
    app: &mut App,
) -> Result<()> {
    match (args.get.len(), found) {
        (1, [(_, value)]) => app.output.line(value),
        _ => found
            .iter()
            .try_for_each(|(key, value)| app.output.line(format_args!("{key}: {value}"))),
    }
}

fn annotations_json(reference: &str, digest: &Digest, found: Vec<(String, String)>) -> Value {
    let annotations: serde_json::Map<String, Value> = found
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    json!({
        "reference": reference,
        "digest": digest.to_string(),
        "annotations": annotations,
    })
}

async fn describe(
    digest: &Digest,
    object: &Object,
    human: bool,
    repository: &dyn Repository,
) -> Result<Vec<String>> {
    let bytes = |n: u64| if human { size::human(n) } else { n.to_string() };
    let mut lines = vec![format!("{digest}:"), format!("{}:", object.kind())];
    match object {
        Object::Blob(blob) => {
            lines.push(format!(" refs: {digest}"));
            lines.push(format!(" digest: {}", blob.payload));
            lines.push(format!(" size: {}", bytes(blob.size)));
        }
        Object::Manifest(manifest) => {
            let (entries, total) = count(manifest);
            lines.push(format!(" refs: {digest}"));
            lines.push(format!(" trees: {}", manifest.trees().len()));
            lines.push(format!(" entries: {entries}"));
            lines.push(format!(" size: {}", bytes(total)));
        }
        Object::Layer(layer) => lines.extend(describe_layer(digest, layer)),
        Object::Platform(platform) => {
            lines.push(format!(" refs: {digest}"));
            lines.extend(describe_platform(platform));
        }
    }
    if let Object::Blob(blob) = object
        && repository
            .payload_size(&blob.payload)
            .await
            .is_ok_and(|size| size.is_none())
    {
        lines.push(" payload: missing".into());
    }
    lines.push(String::new());
    Ok(lines)
}

fn describe_layer(digest: &Digest, layer: &Layer) -> Vec<String> {
    let manifest = layer
        .manifest()
        .map_or_else(|| "None".into(), |manifest| manifest.to_string());
    let mut lines = vec![format!(" refs: {digest}"), format!(" manifest: {manifest}")];
    if layer.annotations().is_empty() {
        lines.push(" annotations: none".into());
        return lines;
    }
    lines.push(" annotations:".into());
    for annotation in layer.annotations() {
        lines.push(format!("  key: {}", annotation.key));
        lines.push(format!("  value: {}", annotation_text(&annotation.value)));
    }
    lines
}

fn describe_platform(platform: &Platform) -> impl Iterator<Item = String> {
    let top_down = platform
        .layers
        .iter()
        .rev()
        .map(|layer| format!("  - {layer}"));
    std::iter::once("stack (top-down):".to_owned()).chain(top_down)
}

fn annotation_text(value: &AnnotationValue) -> String {
    match value {
        AnnotationValue::Text(text) => text.clone(),
        AnnotationValue::Blob(digest) => digest.to_string(),
    }
}

async fn describe_json(
    reference: &str,
    digest: &Digest,
    object: &Object,
    repository: &dyn Repository,
) -> Result<Value> {
    let mut value = json!({
        "reference": reference,
        "digest": digest.to_string(),
        "kind": object.kind().as_str(),
    });
    match object {
        Object::Blob(blob) => {
            value["size"] = blob.size.into();
            value["payload_present"] = match repository.payload_size(&blob.payload).await {
                Ok(size) => size.is_some().into(),
                Err(_) => Value::Null,
            };
        }
        Object::Manifest(manifest) => {
            let (entries, total) = count(manifest);
            value["trees"] = manifest.trees().len().into();
            value["entries"] = entries.into();
            value["size"] = total.into();
        }
        Object::Layer(layer) => {
            value["manifest"] = layer.manifest().map(|manifest| manifest.to_string()).into();
            let annotations =
                layer
                    .annotations()
                    .iter()
                    .map(|annotation| match &annotation.value {
                        AnnotationValue::Text(text) => {
                            json!({"key": annotation.key, "value": text})
                        }
                        AnnotationValue::Blob(blob) => {
                            json!({"key": annotation.key, "blob": blob.to_string()})
                        }
                    });
            value["annotations"] = annotations.collect();
        }
        Object::Platform(platform) => {
            value["layers"] = platform.layers.iter().map(Digest::to_string).collect();
        }
    }
    Ok(value)
}

/// Files, links and directories, and the bytes of all files, each stored tree once.
fn count(manifest: &Manifest) -> (usize, u64) {
    let entries = manifest
        .trees()
        .iter()
        .map(|tree| tree.entries().len())
        .sum();
    let blobs = manifest.trees().iter().flat_map(|tree| tree.entries());
    let sizes = blobs
        .filter(|entry| entry.kind == EntryKind::Blob)
        .map(|entry| entry.size);
    (entries, sizes.fold(0, u64::saturating_add))
}
