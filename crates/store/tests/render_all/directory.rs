//! Into a directory of somebody's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use farseek_object::Digest;
use farseek_store::{
    Chain, ChainOptions, MemoryRepository, Progress, RenderOptions, RenderSource, Repository,
    StoreError, render_directory,
};

use crate::site::{
    Directory, File, Link, Mask, Site, everything, expected, look, merged, one_by_one, put,
};

/// 1980-01-01T00:00:00Z.
const EPOCH: i64 = 315_532_800;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_with_its_mode_and_the_time_of_mounts() {
    let site = Site::new();
    let layer = site.layer(everything()).await;
    let options = RenderOptions {
        set_id: true,
        ..RenderOptions::default()
    };
    let made = site.render_with(&[&layer], "out", &options).await.unwrap();
    assert_eq!(
        (made.files, made.directories, made.symlinks, made.linked),
        (11, 4, 3, 0)
    );
    for name in ["out", "out/hello", "out/dangling", "out/dir"] {
        let found = fs::symlink_metadata(site.path(name)).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (EPOCH, 0), "{name}");
        assert!(found.is_dir() || found.nlink() == 1, "{name} is a copy");
    }
    assert_eq!(look(&site.path("out")), expected(&everything()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_runs_as_who_renders_unless_that_is_asked_for() {
    let site = Site::new();
    let layer = site.layer(everything()).await;
    let options = RenderOptions::default();
    site.render_with(&[&layer], "out", &options).await.unwrap();
    let mut harmless = expected(&everything());
    for (path, (mode, _)) in &mut harmless {
        if path.starts_with("set-") {
            assert_ne!(*mode & 0o6000, 0, "{path}");
            *mode &= !0o6000;
        }
    }
    assert_eq!(look(&site.path("out")), harmless);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_there_stays_open_to_who_uses_it() {
    /// Notes the mode of a directory whenever something has been made.
    struct Watch(PathBuf, Mutex<BTreeSet<u32>>);
    impl Progress for Watch {
        fn stored(&self, _: u64, _: u64) {
            let mode = fs::metadata(&self.0).unwrap().mode() & 0o7777;
            self.1.lock().unwrap().insert(mode);
        }
    }
    let site = Site::new();
    let below = vec![("x", File(0o644, "x")), ("y", File(0o644, "y"))];
    let layer = site.layer(vec![("d", Directory(0o555, below))]).await;
    let place = site.path("out/d");
    fs::create_dir_all(&place).unwrap();
    let options = RenderOptions {
        allow_existing: true,
        ..one_by_one()
    };
    for (before, meanwhile) in [(0o755, 0o755), (0o1575, 0o1775)] {
        fs::set_permissions(&place, fs::Permissions::from_mode(before)).unwrap();
        let watch = Arc::new(Watch(place.clone(), Mutex::default()));
        let (source, tree, target) = (site.source(), merged(&[&layer]), site.path("out"));
        let progress = Arc::clone(&watch) as Arc<_>;
        render_directory(source, tree, &target, &options, progress)
            .await
            .unwrap();
        assert_eq!(*watch.1.lock().unwrap(), BTreeSet::from([meanwhile]));
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o555);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_is_parted_among_threads() {
    let site = Site::new();
    let names: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let files = names.iter().map(|name| (*name, File(0o644, name)));
    let below = names
        .iter()
        .map(|name| (*name, Directory(0o755, files.clone().take(3).collect())));
    let entries = vec![
        ("files", Directory(0o500, files.clone().collect())),
        ("below", Directory(0o500, below.collect())),
    ];
    let layer = site.layer(entries.clone()).await;
    for concurrency in [1, 3, 16] {
        let options = RenderOptions {
            concurrency,
            ..RenderOptions::default()
        };
        let name = format!("out{concurrency}");
        site.render_with(&[&layer], &name, &options).await.unwrap();
        assert_eq!(look(&site.path(&name)), expected(&entries));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_merged_and_masks_hide() {
    let site = Site::new();
    let lower = vec![
        ("gone", File(0o644, "1")),
        (
            "dir",
            Directory(0o755, vec![("gone", File(0o644, "2")), ("kept", Link("x"))]),
        ),
        ("anew", Directory(0o755, vec![("old", File(0o644, "3"))])),
        ("turned", Directory(0o755, vec![("old", File(0o644, "4"))])),
    ];
    let middle = vec![
        ("gone", Mask),
        ("dir", Directory(0o700, vec![("gone", Mask)])),
        ("anew", Mask),
        ("turned", File(0o600, "a file")),
    ];
    let upper = vec![("anew", Directory(0o711, vec![("new", File(0o644, "5"))]))];
    let layers = [
        site.layer(lower).await,
        site.layer(middle).await,
        site.layer(upper).await,
    ];
    let layers: Vec<_> = layers.iter().collect();
    site.render(&layers, "out").await.unwrap();
    let shown = vec![
        ("dir", Directory(0o700, vec![("kept", Link("x"))])),
        ("anew", Directory(0o711, vec![("new", File(0o644, "5"))])),
        ("turned", File(0o600, "a file")),
    ];
    assert_eq!(look(&site.path("out")), expected(&shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_holds_something_is_refused_unless_that_is_allowed() {
    let site = Site::new();
    let entries = vec![
        ("a", File(0o644, "a of the environment")),
        ("d", Directory(0o555, vec![("x", File(0o644, "x"))])),
        ("l", Link("a")),
    ];
    let layer = site.layer(entries.clone()).await;
    let at = |name: &str| site.path("out").join(name);
    fs::create_dir_all(at("d/theirs")).unwrap();
    fs::write(at("other"), "theirs").unwrap();
    let before = look(&site.path("out"));
    let refused = site.render(&[&layer], "out").await.unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    assert_eq!(look(&site.path("out")), before);

    // A link to a file of somebody's: what is written must not go there.
    fs::write(site.path("foreign"), "foreign").unwrap();
    std::os::unix::fs::symlink(site.path("foreign"), at("a")).unwrap();
    fs::write(at("l"), "a file").unwrap();
    let allowed = RenderOptions {
        allow_existing: true,
        ..one_by_one()
    };
    // Twice: what was rendered is no obstacle, whatever its modes.
    for _ in 0..2 {
        site.render_with(&[&layer], "out", &allowed).await.unwrap();
    }
    let mut shown = expected(&entries);
    shown.extend(before.into_iter().filter(|(path, _)| path != "d"));
    assert_eq!(look(&site.path("out")), shown);
    assert_eq!(fs::read_to_string(site.path("foreign")).unwrap(), "foreign");

    fs::remove_file(at("a")).unwrap();
    fs::create_dir(at("a")).unwrap();
    let refused = site.render_with(&[&layer], "out", &allowed).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("out/a"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_payload_is_told_and_not_rendered() {
    let site = Site::new();
    let layer = site.layer(vec![("f", File(0o644, "true"))]).await;
    let payload = site.payload(&Digest::of(b"true"));
    for (n, wrong) in ["lies", "longer", "shr"].into_iter().enumerate() {
        fs::write(&payload, wrong).unwrap();
        let failed = site
            .render(&[&layer], &format!("out{n}"))
            .await
            .unwrap_err();
        assert!(matches!(failed, StoreError::Corrupt { .. }), "{failed}");
        assert!(failed.to_string().contains("check --pull"), "{failed}");
    }
    fs::remove_file(&payload).unwrap();
    let failed = site.render(&[&layer], "out").await.unwrap_err();
    assert!(failed.is_not_found(), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_is_fetched_and_verified() {
    let site = Site::new();
    let remote: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let large: &'static str = "large ".repeat(200_000).leak();
    let entries = vec![("large", File(0o600, large)), ("link", Link("large"))];
    let layer = put(&*remote, entries.clone()).await;
    let here = Arc::clone(&site.repository) as Arc<dyn Repository>;
    let chain = Chain::new(here, vec![Arc::clone(&remote)], ChainOptions::default());
    let source = RenderSource {
        all: Arc::new(chain),
        ..site.source()
    };
    let (tree, target) = (merged(&[&layer]), site.path("out"));
    let options = RenderOptions::default();
    render_directory(source, tree, &target, &options, Arc::new(()))
        .await
        .unwrap();
    assert_eq!(look(&target), expected(&entries));
    assert!(
        !site.payload(&Digest::of(large.as_bytes())).exists(),
        "it went where it was wanted, and nowhere else"
    );
}
