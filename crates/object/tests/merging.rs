//! The merge of stacked manifests against a naive model.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::collections::BTreeMap;

use farseek_object::{
    Digest, DirectoryBuilder, Entry, EntryKind, EntryName, Header, Manifest, MergeOptions,
    MergedTree, NewEntry, NodeKind, Tree, hidden,
};
use proptest::prelude::*;

/// A layer as a person would write it down.
#[derive(Debug, Clone)]
enum Item {
    File(u8),
    Mask,
    Dir(BTreeMap<String, Item>),
}

type Layer = BTreeMap<String, Item>;

fn build(layer: &Layer) -> DirectoryBuilder {
    let mut directory = DirectoryBuilder::new();
    for (name, item) in layer {
        let entry = match item {
            Item::File(byte) => NewEntry::Blob {
                object: Digest::of(&[*byte]),
                mode: 0o100_644,
                size: 1,
            },
            Item::Mask => NewEntry::Mask { mode: 0o020_000 },
            Item::Dir(contents) => NewEntry::Directory {
                mode: 0o40755,
                contents: build(contents),
            },
        };
        directory.insert(EntryName::new(name).unwrap(), entry);
    }
    directory
}

fn manifest(layer: &Layer) -> Manifest {
    build(layer).into_manifest(Header::default()).unwrap()
}

/// The rule of FORMAT.md section 3.3 word by word, on nested maps.
fn overlay(lower: &mut Layer, upper: &Layer) {
    for (name, item) in upper {
        match item {
            Item::Mask => {
                lower.remove(name);
            }
            Item::File(byte) => {
                lower.insert(name.clone(), Item::File(*byte));
            }
            Item::Dir(contents) => {
                let below = lower.entry(name.clone()).or_insert(Item::Mask);
                if !matches!(below, Item::Dir(_)) {
                    *below = Item::Dir(Layer::new());
                }
                let Item::Dir(below) = below else {
                    unreachable!()
                };
                overlay(below, contents);
            }
        }
    }
}

fn paths_of_model(layer: &Layer, prefix: &str, out: &mut Vec<(String, Option<Digest>)>) {
    for (name, item) in layer {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        match item {
            Item::File(byte) => out.push((path, Some(Digest::of(&[*byte])))),
            Item::Mask => {}
            Item::Dir(contents) => {
                out.push((path.clone(), None));
                paths_of_model(contents, &path, out);
            }
        }
    }
}

fn paths_of(tree: &MergedTree) -> Vec<(String, Option<Digest>)> {
    let mut paths: Vec<_> = (1..tree.nodes().len() as u32)
        .map(|position| {
            let node = tree.node(position).unwrap();
            let payload = (node.kind() != NodeKind::Directory).then_some(node.payload);
            (tree.path(position), payload)
        })
        .collect();
    paths.sort();
    paths
}

fn merge(layers: &[Layer]) -> MergedTree {
    let manifests: Vec<Manifest> = layers.iter().map(manifest).collect();
    let manifests: Vec<&Manifest> = manifests.iter().collect();
    MergedTree::new(&manifests, MergeOptions::default()).unwrap()
}

fn without_masks(layer: &Layer) -> Layer {
    let kept = layer.iter().filter(|(_, item)| !matches!(item, Item::Mask));
    let kept = kept.map(|(name, item)| match item {
        Item::Dir(contents) => (name.clone(), Item::Dir(without_masks(contents))),
        item => (name.clone(), item.clone()),
    });
    kept.collect()
}

fn any_layer() -> impl Strategy<Value = Layer> {
    let leaf = prop_oneof![3 => any::<u8>().prop_map(Item::File), 1 => Just(Item::Mask)];
    let item = leaf.prop_recursive(4, 24, 5, |inner| {
        prop::collection::btree_map("[a-d]", inner, 0..5).prop_map(Item::Dir)
    });
    prop::collection::btree_map("[a-d]", item, 0..5)
}

proptest! {
    #[test]
    fn a_merge_is_what_the_model_says(layers in prop::collection::vec(any_layer(), 0..5)) {
        let mut model = Layer::new();
        layers.iter().for_each(|layer| overlay(&mut model, layer));
        let mut expected = Vec::new();
        paths_of_model(&model, "", &mut expected);
        expected.sort();
        let tree = merge(&layers);
        prop_assert_eq!(paths_of(&tree), expected);
    }

    #[test]
    fn without_what_is_hidden_layers_without_masks_show_the_merge(
        layers in prop::collection::vec(any_layer(), 0..5)
    ) {
        let manifests: Vec<Manifest> = layers.iter().map(manifest).collect();
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        let tree = merge(&layers);
        let hidden = hidden(&manifests, &tree, MergeOptions::default()).unwrap();
        let mut shown = Layer::new();
        layers.iter().for_each(|layer| overlay(&mut shown, &without_masks(layer)));
        let mut paths = Vec::new();
        paths_of_model(&shown, "", &mut paths);
        for name in &hidden.names {
            prop_assert!(paths.iter().any(|(path, _)| path == name), "{} is shown", name);
            let below = format!("{name}/");
            paths.retain(|(path, _)| path != name && !path.starts_with(&below));
            let above = name.match_indices('/').map(|(end, _)| &name[..end]);
            for above in above {
                let at = tree.find(above).unwrap();
                prop_assert_eq!(hidden.directories[above], tree.node(at).unwrap().mode);
            }
        }
        paths.sort();
        prop_assert_eq!(paths_of(&tree), paths);
    }

    #[test]
    fn children_are_sorted_neighbours_and_found_by_name(layers in prop::collection::vec(any_layer(), 1..4)) {
        let tree = merge(&layers);
        for (position, node) in tree.nodes().iter().enumerate() {
            let children = node.children();
            let names: Vec<&str> =
                children.clone().map(|c| tree.name(tree.node(c).unwrap())).collect();
            prop_assert!(names.is_sorted_by(|a, b| a < b));
            for child in children {
                let node = tree.node(child).unwrap();
                prop_assert_eq!(node.parent as usize, position);
                prop_assert_eq!(tree.child(position as u32, tree.name(node)), Some(child));
                prop_assert_eq!(tree.find(&tree.path(child)), Some(child));
            }
            prop_assert_eq!(tree.child(position as u32, "not there"), None);
        }
    }
}

#[test]
fn a_directory_that_was_a_file_in_between_has_no_old_children() {
    let dir = |name: &str| {
        Layer::from([(
            "d".into(),
            Item::Dir(Layer::from([(name.into(), Item::File(1))])),
        )])
    };
    let file = Layer::from([("d".into(), Item::File(2))]);
    let tree = merge(&[dir("old"), file, dir("new")]);
    let paths: Vec<String> = paths_of(&tree).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["d", "d/new"]);
}

/// `levels` trees, each with two entries for the next: 2^levels files, made without unfolding.
fn doubling(levels: u32) -> Manifest {
    let mut tree = Tree::default();
    let mut trees = vec![tree.clone()];
    for _ in 0..levels {
        let entry = |text| Entry {
            name: EntryName::new(text).unwrap(),
            kind: EntryKind::Tree,
            object: tree.digest(),
            mode: 0o40755,
            size: 0,
        };
        tree = Tree::new(vec![entry("a"), entry("b")]).unwrap();
        trees.push(tree.clone());
    }
    trees.reverse();
    Manifest::new(Header::default(), trees).unwrap()
}

#[test]
fn a_small_manifest_that_unfolds_without_end_is_refused_by_counting() {
    // Building even a part of it would take all memory there is: 2^200 nodes.
    let options = MergeOptions {
        max_nodes: u32::MAX,
    };
    let error = MergedTree::new(&[&doubling(200)], options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("exceeds the limit"), "{error}");
    // Two layers that are small enough one by one, but not together.
    let names = |prefix: &str| -> Layer {
        (0..8)
            .map(|i| (format!("{prefix}{i}"), Item::File(i)))
            .collect()
    };
    let (lower, upper) = (manifest(&names("a")), manifest(&names("b")));
    let merge = |max_nodes| MergedTree::new(&[&lower, &upper], MergeOptions { max_nodes });
    assert_eq!(merge(17).unwrap().nodes().len(), 17);
    assert!(merge(16).is_err());
    // Shared trees that are not too many are fine.
    let tree = MergedTree::new(&[&doubling(10)], MergeOptions::default()).unwrap();
    assert_eq!(tree.nodes().len(), (1 << 11) - 1);
}

#[test]
fn no_layers_are_an_empty_root() {
    let tree = merge(&[]);
    assert_eq!(tree.nodes().len(), 1);
    assert_eq!(tree.node(0).unwrap().children(), 1..1);
}
