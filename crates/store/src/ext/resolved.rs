//! An environment that has been read: its stack, and every object of it but blobs.

use std::collections::{HashMap, HashSet};

use farseek_object::{Digest, Manifest, Object, ObjectKind};

/// What an environment is made of, in memory.
#[derive(Debug, Clone)]
pub struct ResolvedEnvironment {
    /// What was asked for, bottom first, each once.
    pub(super) stack: Vec<Digest>,
    /// The manifests it shows, bottom first, each once.
    pub(super) order: Vec<Digest>,
    /// Every platform, layer and manifest at and below the stack.
    pub(super) objects: HashMap<Digest, Object>,
}

impl ResolvedEnvironment {
    /// Platforms, layers and manifests as they were asked for, bottom first, each once.
    pub fn stack(&self) -> &[Digest] {
        &self.stack
    }

    /// The digests of the manifests it shows, bottom first.
    pub fn manifest_digests(&self) -> &[Digest] {
        &self.order
    }

    /// The manifests it shows, bottom first.
    pub fn manifests(&self) -> Vec<&Manifest> {
        let objects = self.order.iter().map(|digest| &self.objects[digest]);
        objects.filter_map(as_manifest).collect()
    }

    /// The manifests it shows, bottom first; the rest is dropped.
    pub fn into_manifests(mut self) -> Vec<Manifest> {
        let objects = self.order.iter().map(|digest| self.objects.remove(digest));
        objects
            .map(|object| match object {
                Some(Object::Manifest(manifest)) => manifest,
                _ => unreachable!("the order names each loaded manifest once"),
            })
            .collect()
    }

    /// Every manifest, layer and platform of it, each after those that it refers to.
    pub fn children_first(&self) -> Vec<(&Digest, &Object)> {
        let of = |kind| self.objects.iter().filter(move |(_, o)| o.kind() == kind);
        let mut all: Vec<_> = of(ObjectKind::Manifest).collect();
        all.extend(of(ObjectKind::Layer));
        all.extend(self.platforms_children_first());
        all
    }

    /// A walk with its own stack: platforms may be nested deeply.
    fn platforms_children_first(&self) -> Vec<(&Digest, &Object)> {
        let (mut done, mut seen) = (Vec::new(), HashSet::new());
        let mut pending: Vec<(&Digest, bool)> = self.stack.iter().map(|d| (d, false)).collect();
        while let Some((digest, is_after_children)) = pending.pop() {
            let Some((digest, Object::Platform(platform))) = self.objects.get_key_value(digest)
            else {
                continue;
            };
            if is_after_children {
                done.push((digest, &self.objects[digest]));
            } else if seen.insert(digest) {
                pending.push((digest, true));
                pending.extend(platform.layers.iter().map(|layer| (layer, false)));
            }
        }
        done
    }
}

fn as_manifest(object: &Object) -> Option<&Manifest> {
    match object {
        Object::Manifest(manifest) => Some(manifest),
        _ => None,
    }
}
