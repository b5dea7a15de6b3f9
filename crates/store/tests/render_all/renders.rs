//! The store of renders: strategies, what is shared, what two do at once, what is left.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farseek_object::{Digest, S_IFREG};
use farseek_store::{
    CopyOptions, MemoryRepository, RenderStore, RenderStrategy, Rendered, Repository,
};

use crate::site::{Directory, File, Site, by, everything, expected, look, put};

fn inode(path: &Path) -> (u64, u64) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.ino(), found.nlink())
}

/// Names in a directory.
fn names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Nothing that is unfinished is left.
fn see_no_work(site: &Site) {
    for work in ["work", "proxy/work"] {
        assert_eq!(names(&site.of_renders(work)), [""; 0], "{work}");
    }
}

async fn render(site: &Site, name: &str, strategy: RenderStrategy) -> Rendered {
    let layer = site.layer(everything()).await;
    let renders = RenderStore::new(Arc::clone(&site.repository), name).unwrap();
    let rendered = renders.render(layer, &by(strategy), Arc::new(())).await;
    rendered.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_shows_the_same() {
    use RenderStrategy::{Copy, HardLink, HardLinkNoProxy};
    for strategy in [HardLink, HardLinkNoProxy, Copy] {
        let site = Site::new();
        let rendered = render(&site, "me", strategy).await;
        let digest = rendered.manifest.to_string();
        assert_eq!(
            rendered.path,
            site.of_renders(&digest[..2]).join(&digest[2..])
        );
        let made = rendered.summary.unwrap();
        let hello = inode(&rendered.path.join("hello"));
        let again = inode(&rendered.path.join("dir/again"));
        let payload = inode(&site.payload(&Digest::of(b"hello")));
        match strategy {
            // The payload has the mode of one of the two modes that files have which it is of.
            HardLink => {
                assert_eq!(made.linked, made.files);
                assert_eq!(hello.0, again.0);
            }
            HardLinkNoProxy => {
                assert!((2..made.files).contains(&made.linked), "{made:?}");
                assert_eq!(payload.1 > 1, hello.0 == payload.0 || payload.1 == 2);
            }
            Copy => {
                assert_eq!((made.linked, hello.1, payload.1), (0, 1, 1));
            }
        }
        assert_eq!(fs::metadata(&rendered.path).unwrap().mode() & 0o7777, 0o777);
        see_no_work(&site);
        assert_eq!(
            look(&rendered.path),
            expected(&everything()),
            "{strategy:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_the_payload_where_that_is_as_the_file_and_is_shared() {
    let site = Site::new();
    let one = site
        .layer(vec![("plain", File(0o644, "x")), ("odd", File(0o600, "x"))])
        .await;
    let two = site
        .layer(vec![(
            "d",
            Directory(0o755, vec![("other", File(0o600, "x"))]),
        )])
        .await;
    let renders = site.renders();
    let options = by(RenderStrategy::HardLink);
    let one = renders.render(one, &options, Arc::new(())).await.unwrap();
    let digest = Digest::of(b"x");
    let payload = site.payload(&digest);
    let of_mode = |mode: u32| {
        let text = digest.to_string();
        let shelf = site.of_renders("proxy").join(&text[..2]).join(&text[2..]);
        shelf.join((S_IFREG | mode).to_string())
    };
    // Its first writer said 0644; see what the payload has become by that.
    assert_eq!(fs::metadata(&payload).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(inode(&one.path.join("plain")), (inode(&payload).0, 3));
    assert_eq!(inode(&of_mode(0o644)).0, inode(&payload).0);
    let odd = inode(&of_mode(0o600));
    assert_eq!((inode(&one.path.join("odd")), odd.1), (odd, 2));
    let two = renders.render(two, &options, Arc::new(())).await.unwrap();
    assert_eq!(inode(&two.path.join("d/other")), (odd.0, 3));
    // Of a damaged one nothing is taken.
    let three = site.layer(vec![("third", File(0o600, "x"))]).await;
    fs::remove_file(of_mode(0o600)).unwrap();
    fs::write(of_mode(0o600), "damaged").unwrap();
    let three = renders.render(three, &options, Arc::new(())).await.unwrap();
    assert_eq!(fs::read_to_string(three.path.join("third")).unwrap(), "x");
    assert_eq!(fs::read_to_string(of_mode(0o600)).unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_that_is_there_is_found_and_made_young() {
    let site = Site::new();
    let first = render(&site, "me", RenderStrategy::HardLink).await;
    let old = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&first.path)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let second = render(&site, "me", RenderStrategy::HardLink).await;
    assert_eq!((second.summary, &second.path), (None, &first.path));
    let modified = fs::metadata(&first.path).unwrap().modified().unwrap();
    assert!(modified > old + Duration::from_secs(1800));
    // Another user's are that user's.
    let other = render(&site, "other", RenderStrategy::HardLink).await;
    assert!(other.summary.is_some() && other.path != first.path);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_render_the_same_one_does() {
    for round in 0..8 {
        let site = Site::new();
        let layer = site.layer(everything()).await;
        let renders = (0..6).map(|_| {
            let (renders, layer) = (site.renders(), layer.clone());
            let options = by(RenderStrategy::HardLink);
            tokio::spawn(async move { renders.render(layer, &options, Arc::new(())).await })
        });
        let mut new = 0;
        for render in renders.collect::<Vec<_>>() {
            let rendered = render.await.unwrap().unwrap();
            new += u32::from(rendered.summary.is_some());
        }
        assert_eq!(new, 1, "round {round}");
        see_no_work(&site);
        let path = render(&site, "me", RenderStrategy::HardLink).await.path;
        assert_eq!(look(&path), expected(&everything()), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_that_fails_leaves_nothing() {
    let site = Site::new();
    let closed = vec![("z", File(0o600, "missing"))];
    let entries = vec![("a", File(0o600, "there")), ("d", Directory(0o000, closed))];
    let layer = site.layer(entries).await;
    fs::remove_file(site.payload(&Digest::of(b"missing"))).unwrap();
    let options = by(RenderStrategy::HardLink);
    let failed = site
        .renders()
        .render(layer.clone(), &options, Arc::new(()))
        .await;
    assert!(failed.unwrap_err().is_not_found());
    see_no_work(&site);
    // What is missing is fetched, and nothing of what is there.
    let remote: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    put(&*remote, vec![("x", File(0o600, "missing"))]).await;
    let digest = farseek_object::Object::Manifest(layer.clone()).digest();
    let here = Arc::clone(&site.repository) as Arc<dyn Repository>;
    let chain = farseek_store::Chain::new(here, vec![remote], Default::default());
    let from: Arc<dyn Repository> = Arc::new(chain);
    let (renders, digests) = (site.renders(), [digest]);
    let fetched = renders.fetch(&from, &digests, CopyOptions::default(), Arc::new(()));
    assert_eq!(fetched.await.unwrap().payloads, 1);
    let rendered = renders.render(layer, &options, Arc::new(())).await.unwrap();
    let file = rendered.path.join("d/z");
    fs::set_permissions(rendered.path.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "missing");
}

#[test]
fn a_user_is_one_directory() {
    let site = Site::new();
    for name in ["", ".", "..", "a/b", "../x", "a\0"] {
        let store = RenderStore::new(Arc::clone(&site.repository), name);
        assert!(store.is_err(), "{name:?}");
    }
}
