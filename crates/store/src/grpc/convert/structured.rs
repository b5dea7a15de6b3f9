//! Objects as old peers send them: field by field, without their header (FORMAT.md section 6.1).

use farseek_object::{
    Annotation, AnnotationValue, Blob, Entry, EntryKind, EntryName, Header, Layer, Manifest,
    Object, Platform, Tree,
};

use super::{Result, malformed, to_digest, wire};

pub(super) fn platform(platform: &wire::Platform, header: Header) -> Result<Object> {
    let layers = platform
        .stack
        .iter()
        .map(|digest| to_digest(Some(digest), "a platform's layer"));
    Ok(Object::Platform(Platform {
        header,
        layers: layers.collect::<Result<_>>()?,
    }))
}

pub(super) fn layer(layer: &wire::Layer, header: Header) -> Result<Object> {
    let manifest = layer.manifest.as_ref();
    let manifest = manifest.map(|digest| to_digest(Some(digest), "a layer's manifest"));
    let annotations = layer.annotations.iter().map(annotation);
    Layer::new(
        header,
        manifest.transpose()?,
        annotations.collect::<Result<_>>()?,
    )
    .map(Object::Layer)
}

fn annotation(annotation: &wire::Annotation) -> Result<Annotation> {
    use wire::annotation::Value;
    let value = match &annotation.value {
        Some(Value::Data(text)) => AnnotationValue::Text(text.clone()),
        Some(Value::Digest(digest)) => {
            AnnotationValue::Blob(to_digest(Some(digest), "an annotation's blob")?)
        }
        None => return Err(malformed("layer", "an annotation has no value")),
    };
    Ok(Annotation {
        key: annotation.key.clone(),
        value,
    })
}

pub(super) fn manifest(manifest: &wire::Manifest, header: Header) -> Result<Object> {
    let root = manifest.root.as_ref();
    let root = root.ok_or_else(|| malformed("manifest", "it has no root tree"))?;
    let trees = std::iter::once(root).chain(&manifest.trees).map(tree);
    Manifest::new(header, trees.collect::<Result<_>>()?).map(Object::Manifest)
}

fn tree(tree: &wire::Tree) -> Result<Tree> {
    Tree::new(tree.entries.iter().map(entry).collect::<Result<_>>()?)
}

fn entry(entry: &wire::Entry) -> Result<Entry> {
    let kind = match wire::EntryKind::try_from(entry.kind) {
        Ok(wire::EntryKind::Tree) => EntryKind::Tree,
        Ok(wire::EntryKind::Blob) => EntryKind::Blob,
        Ok(wire::EntryKind::Mask) => EntryKind::Mask,
        Err(_) => {
            let reason = format!("an entry is of the unknown kind {}", entry.kind);
            return Err(malformed("tree", reason));
        }
    };
    Ok(Entry {
        name: EntryName::new(&entry.name)?,
        kind,
        object: to_digest(entry.object.as_ref(), "an entry")?,
        mode: entry.mode,
        size: entry.size,
    })
}

pub(super) fn blob(blob: &wire::Blob, header: Header) -> Result<Object> {
    Ok(Object::Blob(Blob {
        header,
        payload: to_digest(blob.payload.as_ref(), "a blob's payload")?,
        size: blob.size,
    }))
}
