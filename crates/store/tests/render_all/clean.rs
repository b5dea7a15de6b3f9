//! What a clean does with renders.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farseek_object::{Digest, Manifest, Object, S_IFREG};
use farseek_store::{
    CleanOptions, CleanSummary, LeftoverKind, RenderStrategy, Rendered, Repository, plan_clean,
    sweep,
};

use crate::site::{Directory, File, Site, What, by};

const HOUR: Duration = Duration::from_secs(3600);

fn options() -> CleanOptions {
    CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    }
}

async fn render(site: &Site, layer: &Manifest) -> Rendered {
    let options = by(RenderStrategy::HardLink);
    let renders = site.renders();
    let rendered = renders.render(layer.clone(), &options, Arc::new(()));
    rendered.await.unwrap()
}

async fn tag(site: &Site, layer: &Manifest) {
    let digest = Object::Manifest(layer.clone()).digest();
    let name = "kept".parse().unwrap();
    site.repository
        .push_tag(&name, &digest, "me")
        .await
        .unwrap();
}

/// Makes a directory, or a file, as if it had been made an hour ago.
fn age(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - HOUR).unwrap();
}

async fn clean(site: &Site) -> CleanSummary {
    let repository = Arc::clone(&site.repository) as Arc<dyn Repository>;
    let plan = plan_clean(&repository, &options(), &()).await.unwrap();
    sweep(&repository, &plan, &options(), &()).await.unwrap()
}

fn shelf(site: &Site, text: &str) -> std::path::PathBuf {
    let digest = Digest::of(text.as_bytes()).to_string();
    site.of_renders("proxy")
        .join(&digest[..2])
        .join(&digest[2..])
}

fn entries(text: &'static str) -> Vec<(&'static str, What)> {
    let closed = vec![("x", File(0o600, text))];
    vec![("closed", Directory(0o000, closed))]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_stays_as_long_as_its_manifest_is_reachable() {
    let site = Site::new();
    let (kept, gone) = (
        site.layer(entries("kept")).await,
        site.layer(entries("gone")).await,
    );
    tag(&site, &kept).await;
    let (kept, gone) = (render(&site, &kept).await, render(&site, &gone).await);
    for path in [
        &kept.path,
        &gone.path,
        &shelf(&site, "kept"),
        &shelf(&site, "gone"),
    ] {
        age(path);
    }
    clean(&site).await;
    assert!(kept.path.exists() && !gone.path.exists());
    assert!(shelf(&site, "kept").exists() && !shelf(&site, "gone").exists());
    // The copy goes with the last render that has it.
    fs::remove_dir_all(&kept.path).unwrap();
    age(&shelf(&site, "kept"));
    clean(&site).await;
    assert!(!shelf(&site, "kept").exists());
    for work in ["work", "proxy/work"] {
        let left = fs::read_dir(site.of_renders(work)).unwrap().count();
        assert_eq!(left, 0, "{work}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_the_payload_counts_its_renders_too() {
    let site = Site::new();
    let layer = site.layer(vec![("x", File(0o644, "x"))]).await;
    tag(&site, &layer).await;
    let rendered = render(&site, &layer).await;
    age(&shelf(&site, "x"));
    clean(&site).await;
    assert!(
        shelf(&site, "x")
            .join((S_IFREG | 0o644).to_string())
            .exists()
    );
    fs::remove_dir_all(&rendered.path).unwrap();
    age(&shelf(&site, "x"));
    clean(&site).await;
    assert!(!shelf(&site, "x").exists());
    assert!(
        site.payload(&Digest::of(b"x")).exists(),
        "the payload stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_that_was_to_go_and_is_found_stays() {
    let site = Site::new();
    let layer = site.layer(entries("x")).await;
    let rendered = render(&site, &layer).await;
    age(&rendered.path);
    let repository = Arc::clone(&site.repository) as Arc<dyn Repository>;
    let plan = plan_clean(&repository, &options(), &()).await.unwrap();
    let doomed = |leftover: &&farseek_store::Leftover| leftover.kind == LeftoverKind::Render;
    assert_eq!(plan.leftovers.iter().filter(doomed).count(), 1);
    let found = render(&site, &layer).await;
    assert_eq!(found.summary, None);
    sweep(&repository, &plan, &options(), &()).await.unwrap();
    assert!(rendered.path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_rendered_is_left_alone() {
    let site = Site::new();
    let _hold = site.repository.hold().await.unwrap();
    let layer = site.layer(entries("x")).await;
    let rendered = render(&site, &layer).await;
    let summary = clean(&site).await;
    assert!(rendered.path.exists() && shelf(&site, "x").exists());
    assert_eq!((summary.objects, summary.payloads), (0, 0), "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_behind_a_link_that_took_the_place_of_a_directory() {
    let site = Site::new();
    let layer = site.layer(entries("x")).await;
    let rendered = render(&site, &layer).await;
    age(&rendered.path);
    let unfinished = site.of_renders("work/9b45806f-32b6-49c6-8359-a169d78acbc4");
    fs::create_dir(&unfinished).unwrap();
    age(&unfinished);
    let repository = Arc::clone(&site.repository) as Arc<dyn Repository>;
    let plan = plan_clean(&repository, &options(), &()).await.unwrap();
    // The copy of the payload is where it was, and goes.
    assert_eq!(plan.leftovers.len(), 3, "{:?}", plan.leftovers);
    let mut elsewhere = Vec::new();
    for (number, doomed) in [&rendered.path, &unfinished].into_iter().enumerate() {
        let (directory, name) = (doomed.parent().unwrap(), doomed.file_name().unwrap());
        let moved = site.path(&format!("elsewhere{number}"));
        fs::rename(directory, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, directory).unwrap();
        elsewhere.push(moved.join(name));
    }
    let removed = sweep(&repository, &plan, &options(), &()).await.unwrap();
    assert_eq!(removed.leftovers, 1, "{removed:?}");
    assert!(elsewhere.iter().all(|path| path.exists()), "{elsewhere:?}");
    // Nor is it taken for something of the repository.
    let plan = plan_clean(&repository, &options(), &()).await.unwrap();
    let of_renders = |leftover: &&farseek_store::Leftover| leftover.path == rendered.path;
    assert_eq!(plan.leftovers.iter().filter(of_renders).count(), 0);
}
