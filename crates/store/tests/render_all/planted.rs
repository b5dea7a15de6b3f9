//! Somebody else is at work in the directory that is rendered into.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::Manifest;
use farseek_store::{Progress, StoreError, render_directory};

use crate::site::{Directory, File, Link, Site, merged, one_by_one};

/// Does something when the first file has been made.
struct AtFirst<F>(F, std::sync::Once);

impl<F: Fn() + Send + Sync> Progress for AtFirst<F> {
    fn stored(&self, _: u64, _: u64) {
        self.1.call_once(&self.0);
    }
}

/// Renders `layer`, whose first file is made before anything else, and has `plant` done after it.
async fn render(
    site: &Site,
    layer: &Manifest,
    plant: impl Fn(&Path, &Path) + Send + Sync + 'static,
) -> (Result<(), StoreError>, PathBuf) {
    let (target, outside) = (site.path("out"), site.path("outside"));
    fs::create_dir(&outside).unwrap();
    let (at, to) = (target.clone(), outside.clone());
    let planting = AtFirst(move || plant(&at, &to), std::sync::Once::new());
    let (source, tree) = (site.source(), merged(&[layer]));
    let progress = Arc::new(planting);
    let rendered = render_directory(source, tree, &target, &one_by_one(), progress).await;
    (rendered.map(|_| ()), outside)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let site = Site::new();
    let below = vec![("x", File(0o644, "x"))];
    let entries = vec![("a", File(0o644, "first")), ("d", Directory(0o755, below))];
    let layer = site.layer(entries).await;
    let plant = |at: &Path, outside: &Path| symlink(outside, at.join("d")).unwrap();
    let (rendered, outside) = render(&site, &layer, plant).await;
    let said = rendered.unwrap_err().to_string();
    assert!(said.contains("out/d"), "{said}");
    assert!(is_empty(&outside));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_exchanged_for_a_link_is_not_followed() {
    let site = Site::new();
    let below = vec![("x", File(0o644, "x")), ("l", Link("x"))];
    // The directory is made, then the file, and only then the directory is entered.
    let entries = vec![("d", Directory(0o755, below)), ("e", File(0o644, "first"))];
    let layer = site.layer(entries).await;
    let plant = |at: &Path, outside: &Path| {
        fs::rename(at.join("d"), at.join("away")).unwrap();
        symlink(outside, at.join("d")).unwrap();
    };
    let (rendered, outside) = render(&site, &layer, plant).await;
    let said = rendered.unwrap_err().to_string();
    assert!(said.contains("out/d"), "{said}");
    assert!(is_empty(&outside));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_directory_may_be_moved_away_meanwhile() {
    let site = Site::new();
    let below = vec![("x", File(0o644, "x"))];
    let entries = vec![("a", File(0o644, "first")), ("d", Directory(0o755, below))];
    let layer = site.layer(entries).await;
    let plant = |at: &Path, outside: &Path| {
        fs::rename(at, at.with_file_name("moved")).unwrap();
        symlink(outside, at).unwrap();
    };
    let (rendered, outside) = render(&site, &layer, plant).await;
    rendered.unwrap();
    assert!(is_empty(&outside));
    assert_eq!(fs::read_to_string(site.path("moved/d/x")).unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_links_of_others_are_not_written_through() {
    for (name, what) in [("z", File(0o644, "mine")), ("z", Link("a"))] {
        let site = Site::new();
        let layer = site
            .layer(vec![("a", File(0o644, "first")), (name, what)])
            .await;
        let plant = |at: &Path, outside: &Path| {
            fs::write(outside.join("theirs"), "theirs").unwrap();
            symlink(outside.join("theirs"), at.join("z")).unwrap();
        };
        let (rendered, outside) = render(&site, &layer, plant).await;
        let said = rendered.unwrap_err().to_string();
        assert!(said.contains("out/z"), "{said}");
        assert_eq!(
            fs::read_to_string(outside.join("theirs")).unwrap(),
            "theirs"
        );
    }
}
