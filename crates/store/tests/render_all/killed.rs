//! A process that renders is killed in the middle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farseek_store::{
    CleanOptions, FsOptions, FsRepository, Progress, RenderStore, RenderStrategy, Repository,
    plan_clean, sweep,
};
use farseek_testkit::{ChildGuard, wait_until};
use nix::sys::signal::Signal;

use crate::site::{Directory, File, Site, by, put};

/// Where the worker's repository is.
const PLACE: &str = "TEST_OF_KILLED_RENDERS";

/// Says that it is in the middle, and stays there.
struct Stays(PathBuf);

impl Progress for Stays {
    fn stored(&self, _: u64, _: u64) {
        fs::write(&self.0, "").unwrap();
        loop {
            std::thread::park();
        }
    }
}

fn entries() -> Vec<(&'static str, crate::site::What)> {
    let below = vec![("y", File(0o600, "y"))];
    vec![("d", Directory(0o500, below)), ("x", File(0o600, "x"))]
}

/// Not a test of its own: renders, and comes to no end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is started by another test"]
async fn worker() {
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let root = place.join("repository");
    let repository = Arc::new(FsRepository::open(&root, FsOptions::default()).unwrap());
    let layer = put(&*repository, entries()).await;
    let renders = RenderStore::new(repository, "me").unwrap();
    let progress = Arc::new(Stays(place.join("in the middle")));
    let options = by(RenderStrategy::HardLink);
    renders.render(layer, &options, progress).await.ok();
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_half_is_seen_and_a_clean_takes_it() {
    let site = Site::new();
    let layer = site.layer(entries()).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["killed::worker", "--exact", "--ignored", "--test-threads=1"]);
    command.env(PLACE, site.path("")).stdout(Stdio::null());
    let mut child = ChildGuard::spawn(&mut command).unwrap();
    wait_until("it is in the middle", Duration::from_secs(60), || {
        site.path("in the middle").exists()
    });
    child.signal(Signal::SIGKILL).unwrap();
    child.wait_within(Duration::from_secs(60)).unwrap();
    let (work, copies) = (site.of_renders("work"), site.of_renders("proxy/work"));
    assert_eq!(count(&work), 1);
    assert!(count(&copies) > 0);
    let digest = farseek_object::Object::Manifest(layer.clone()).digest();
    let renders = site.renders();
    assert!(!renders.path(&digest).exists());
    // Whoever wants it renders it.
    let options = by(RenderStrategy::HardLink);
    let rendered = renders.render(layer, &options, Arc::new(())).await.unwrap();
    assert!(rendered.summary.is_some());
    assert_eq!(fs::read_to_string(rendered.path.join("d/y")).unwrap(), "y");

    let old = SystemTime::now() - Duration::from_secs(3600);
    for left in [&work, &copies] {
        for entry in fs::read_dir(left).unwrap() {
            let file = fs::File::open(entry.unwrap().path()).unwrap();
            file.set_modified(old).unwrap();
        }
    }
    let repository = Arc::clone(&site.repository) as Arc<dyn Repository>;
    let options = CleanOptions {
        threshold: Duration::from_secs(60),
        ..CleanOptions::default()
    };
    let plan = plan_clean(&repository, &options, &()).await.unwrap();
    sweep(&repository, &plan, &options, &()).await.unwrap();
    assert_eq!((count(&work), count(&copies)), (0, 0));
    assert!(rendered.path.exists(), "it is young");
}
