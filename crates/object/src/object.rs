//! The four kinds of stored object, their digests and their children (FORMAT.md section 2).

use std::collections::{HashMap, HashSet};

use crate::codec;
use crate::digest::{Digest, Hasher};
use crate::entry::{EntryKind, Tree};
use crate::error::{ObjectError, Result};
use crate::header::{DigestStrategy, Header, ObjectKind};

/// Hashed before the kind and the body under [`DigestStrategy::KindAndSalt`].
const SALT: &[u8; 49] = b"spfs digest da8d8e62-9459-11ee-adab-00155dcb338b\0";

/// The name and size of a payload. Its digest is the payload's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Kept so that a re-saved object is the same.
    pub header: Header,
    /// The SHA-256 of the payload.
    pub payload: Digest,
    /// Bytes of the payload. Not covered by the digest.
    pub size: u64,
}

/// A value attached to a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnotationValue {
    /// The text itself.
    Text(String),
    /// The blob whose payload is the text, for long values.
    Blob(Digest),
}

/// A key and value attached to a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The key: no NUL.
    pub key: String,
    /// The value: no NUL in a text.
    pub value: AnnotationValue,
}

/// A manifest and annotations; at least one of them is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    header: Header,
    manifest: Option<Digest>,
    annotations: Vec<Annotation>,
}

impl Layer {
    /// A layer over `manifest` with `annotations` in stored order.
    ///
    /// # Errors
    /// Neither manifest nor annotations, or a NUL in a key or text.
    pub fn new(
        header: Header,
        manifest: Option<Digest>,
        annotations: Vec<Annotation>,
    ) -> Result<Self> {
        if manifest.is_none() && annotations.is_empty() {
            return Err(ObjectError::malformed(
                "layer",
                "neither a manifest nor annotations",
            ));
        }
        let has_nul = |a: &Annotation| {
            a.key.contains('\0')
                || matches!(&a.value, AnnotationValue::Text(text) if text.contains('\0'))
        };
        if annotations.iter().any(has_nul) {
            return Err(ObjectError::malformed(
                "layer",
                "an annotation contains a NUL",
            ));
        }
        Ok(Self {
            header,
            manifest,
            annotations,
        })
    }

    /// The header it was read with or will be written with.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The manifest, absent in a layer of annotations alone.
    pub fn manifest(&self) -> Option<Digest> {
        self.manifest
    }

    /// The annotations in stored order.
    pub fn annotations(&self) -> &[Annotation] {
        &self.annotations
    }
}

/// An ordered stack of layers, platforms and bare manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Kept so that a re-saved object is the same.
    pub header: Header,
    /// Bottom first, exactly as stored: duplicates are dropped when the stack is resolved.
    pub layers: Vec<Digest>,
}

/// A directory tree: the root and every other tree, in stored order, none missing.
#[derive(Debug, Clone)]
pub struct Manifest {
    header: Header,
    trees: Vec<Tree>,
    /// Where each tree digest is in `trees`, the first occurrence.
    index: HashMap<Digest, u32>,
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header && self.trees == other.trees
    }
}

impl Eq for Manifest {}

impl Manifest {
    /// A manifest of `trees`, the root first. The order is kept: it is part of the digest.
    ///
    /// # Errors
    /// No root, or an entry that names a tree that is not there.
    pub fn new(header: Header, trees: Vec<Tree>) -> Result<Self> {
        if trees.is_empty() {
            return Err(ObjectError::malformed("manifest", "it has no root tree"));
        }
        let mut index = HashMap::with_capacity(trees.len());
        for (position, tree) in trees.iter().enumerate() {
            let position = u32::try_from(position).map_err(|_| ObjectError::TooLarge {
                what: "the number of trees in a manifest",
                limit: u64::from(u32::MAX),
            })?;
            index.entry(tree.digest()).or_insert(position);
        }
        let missing = trees
            .iter()
            .flat_map(Tree::entries)
            .find(|e| e.kind == EntryKind::Tree && !index.contains_key(&e.object));
        if let Some(entry) = missing {
            let reason = format!("the tree {} of '{}' is missing", entry.object, entry.name);
            return Err(ObjectError::malformed("manifest", reason));
        }
        Ok(Self {
            header,
            trees,
            index,
        })
    }

    /// The header it was read with or will be written with.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The root directory.
    pub fn root(&self) -> &Tree {
        &self.trees[0]
    }

    /// Every tree in stored order, the root first.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// The tree a directory entry names.
    pub fn tree(&self, digest: &Digest) -> Option<&Tree> {
        self.index
            .get(digest)
            .map(|&position| &self.trees[position as usize])
    }
}

/// Any stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A payload's name and size.
    Blob(Blob),
    /// A directory tree.
    Manifest(Manifest),
    /// A manifest and annotations.
    Layer(Layer),
    /// An ordered stack.
    Platform(Platform),
}

impl Object {
    /// Decodes a stored object: header and body, in any combination of encoding and strategy.
    ///
    /// Total: any bytes give an object or an error that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes)
    }

    /// Decodes the object stored under `digest` and checks that it is that one.
    pub fn decode_named(digest: &Digest, bytes: &[u8]) -> Result<Self> {
        let object = Self::decode(bytes)?;
        let actual = object.digest();
        if actual != *digest {
            return Err(ObjectError::WrongDigest {
                expected: *digest,
                actual,
            });
        }
        Ok(object)
    }

    /// The bytes to store: header and body, in the encoding of the object's header.
    ///
    /// # Errors
    /// The legacy encoding cannot hold a layer with annotations or without a manifest.
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    /// Decodes an object as a peer sends it (FORMAT.md section 6.1): the header as stored, then a
    /// FlatBuffer, whatever encoding the header names. The header is kept.
    ///
    /// Total, as [`decode`](Self::decode) is.
    pub fn decode_wire(bytes: &[u8]) -> Result<Self> {
        codec::decode_wire(bytes)
    }

    /// The bytes to send to a peer; see [`decode_wire`](Self::decode_wire).
    ///
    /// # Errors
    /// `TooLarge` where a FlatBuffer cannot hold it.
    pub fn encode_wire(&self) -> Result<Vec<u8>> {
        codec::encode_wire(self)
    }

    /// What it is.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Blob(_) => ObjectKind::Blob,
            Self::Manifest(_) => ObjectKind::Manifest,
            Self::Layer(_) => ObjectKind::Layer,
            Self::Platform(_) => ObjectKind::Platform,
        }
    }

    /// The header it was read with or will be written with.
    pub fn header(&self) -> Header {
        match self {
            Self::Blob(blob) => blob.header,
            Self::Manifest(manifest) => manifest.header,
            Self::Layer(layer) => layer.header,
            Self::Platform(platform) => platform.header,
        }
    }

    /// The name it is stored under (FORMAT.md section 2.3). Independent of the encoding.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        if self.header().strategy == DigestStrategy::KindAndSalt {
            hasher.update(SALT);
            hasher.update(&[self.kind().to_byte()]);
        }
        match self {
            Self::Blob(blob) => return blob.payload,
            Self::Manifest(manifest) => hash_manifest(manifest, &mut hasher),
            Self::Layer(layer) => hash_layer(layer, &mut hasher),
            Self::Platform(platform) => hash_platform(platform, &mut hasher),
        }
        hasher.finish()
    }

    /// The digests of the objects it refers to, each once (FORMAT.md section 2.6).
    pub fn children(&self) -> Vec<Digest> {
        let all: Vec<Digest> = match self {
            Self::Blob(_) => Vec::new(),
            Self::Manifest(manifest) => manifest
                .trees
                .iter()
                .flat_map(Tree::entries)
                .filter(|entry| entry.kind == EntryKind::Blob)
                .map(|entry| entry.object)
                .collect(),
            Self::Layer(layer) => {
                let blobs = layer.annotations.iter().filter_map(|a| match a.value {
                    AnnotationValue::Blob(digest) => Some(digest),
                    AnnotationValue::Text(_) => None,
                });
                layer.manifest.into_iter().chain(blobs).collect()
            }
            Self::Platform(platform) => platform.layers.clone(),
        };
        let mut seen = HashSet::with_capacity(all.len());
        all.into_iter()
            .filter(|digest| seen.insert(*digest))
            .collect()
    }
}

fn hash_manifest(manifest: &Manifest, hasher: &mut Hasher) {
    let (root, others) = manifest.trees.split_first().expect("a manifest has a root");
    root.hash_into(hasher);
    hasher.update(&(others.len() as u64).to_be_bytes());
    others.iter().for_each(|tree| tree.hash_into(hasher));
}

fn hash_layer(layer: &Layer, hasher: &mut Hasher) {
    if let Some(manifest) = layer.manifest {
        hasher.update(manifest.as_bytes());
    }
    for annotation in &layer.annotations {
        hasher.update(annotation.key.as_bytes());
        hasher.update(&[0]);
        match &annotation.value {
            AnnotationValue::Text(text) => {
                hasher.update(&[1]);
                hasher.update(text.as_bytes());
                hasher.update(&[0]);
            }
            AnnotationValue::Blob(digest) => {
                hasher.update(&[2]);
                hasher.update(digest.as_bytes());
            }
        }
    }
}

fn hash_platform(platform: &Platform, hasher: &mut Hasher) {
    hasher.update(&(platform.layers.len() as u64).to_be_bytes());
    platform
        .layers
        .iter()
        .rev()
        .for_each(|layer| hasher.update(layer.as_bytes()));
}
