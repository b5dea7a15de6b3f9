//! Several owners at once, owners that are gone, and SPFS's locks.

use std::fs::FileTimes;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use farseek_testkit::{Need, need};
use tempfile::TempDir;

use super::*;

/// Where the ignored test that holds a lock finds it.
const HOLD: &str = "FARSEEK_TEST_HOLD_LOCK";

const LONG: Duration = Duration::from_secs(100);

fn lock_path() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t.tag.lock");
    (directory, path)
}

/// A process of this host and boot that is gone.
fn gone() -> Owner {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id() as i32;
    child.wait().unwrap();
    Owner {
        pid,
        ..Owner::current().unwrap()
    }
}

fn make_older(path: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

fn assert_locked(path: &Path, owner: &str, at_least: u64) {
    match TagLock::acquire(path, Duration::ZERO) {
        Err(StoreError::Locked {
            path: named,
            owner: found,
            age_seconds,
        }) => {
            assert_eq!(named, path);
            assert!(found.contains(owner), "{found}");
            assert!(
                (at_least..at_least + 60).contains(&age_seconds),
                "{age_seconds} s"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_holds_it_and_the_other_is_told_who() {
    let (_directory, path) = lock_path();
    let lock = TagLock::acquire(&path, LONG).unwrap();
    assert_locked(&path, &format!("process {} on ", std::process::id()), 0);
    let begun = Instant::now();
    TagLock::acquire(&path, Duration::from_millis(200)).unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    lock.check_held().unwrap();
    drop(lock);
    assert!(!path.exists());
    TagLock::acquire(&path, Duration::ZERO).unwrap();
}

#[test]
fn nobody_ever_sees_a_lock_that_names_nobody() {
    let (_directory, path) = lock_path();
    let (done, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(file) = open(&path) {
                    assert_eq!(read_owner(&file), Owner::current());
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // On a busy machine the watcher may not have its turn for a while.
        for round in 0..200_000 {
            if round >= 2000 && seen.load(Ordering::Relaxed) > 0 {
                break;
            }
            drop(TagLock::acquire(&path, LONG).unwrap());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(seen.into_inner() > 0, "the watcher never saw it");
}

#[test]
fn where_a_lock_is_made_in_steps_it_is_the_same() {
    let (_directory, path) = lock_path();
    let me = Owner::current().unwrap();
    let file = create_in_steps(&path, &me.to_string()).unwrap();
    assert_eq!(read_owner(&open(&path).unwrap()), Some(me));
    let again = create_in_steps(&path, "").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(file.metadata().unwrap().mode() & 0o777, SHARED_FILE);
    assert_locked(&path, &format!("process {} on ", std::process::id()), 0);
}

#[test]
fn missing_directories_are_made() {
    let (directory, _) = lock_path();
    let path = directory.path().join("a/b/c.tag.lock");
    drop(TagLock::acquire(&path, LONG).unwrap());
    assert!(path.parent().unwrap().is_dir());
}

#[test]
fn a_lock_of_a_process_that_is_gone_is_taken_over() {
    let (_directory, path) = lock_path();
    fs::write(&path, gone().to_string()).unwrap();
    let lock = TagLock::acquire(&path, Duration::ZERO);
    // A deadline of nothing still allows the one removal that makes it free.
    let lock = lock
        .or_else(|_| TagLock::acquire(&path, Duration::ZERO))
        .unwrap();
    assert_eq!(read_owner(&open(&path).unwrap()), Owner::current());
    drop(lock);
    assert!(!path.exists());
}

#[test]
fn a_lock_that_may_be_in_use_is_left() {
    let (_directory, path) = lock_path();
    let me = Owner::current().unwrap();
    let others = [
        me.clone(),
        Owner {
            namespace: "pid:[1]".into(),
            ..gone()
        },
        Owner {
            boot: "another".into(),
            host: "elsewhere".into(),
            ..gone()
        },
    ];
    for owner in others {
        fs::write(&path, owner.to_string()).unwrap();
        make_older(&path, 5000);
        assert_locked(&path, &format!("process {}", owner.pid), 5000);
        assert!(path.exists());
    }
}

#[test]
fn a_lock_of_spfs_is_left_for_ten_minutes() {
    let (_directory, path) = lock_path();
    fs::write(&path, "").unwrap();
    make_older(&path, 500);
    assert_locked(&path, "does not say its name", 500);
    make_older(&path, 601);
    drop(TagLock::acquire(&path, Duration::from_secs(1)).unwrap());
    assert!(!path.exists());
}

#[test]
fn the_advisory_lock_of_a_live_owner_outweighs_what_the_file_says() {
    let (_directory, path) = lock_path();
    fs::write(&path, gone().to_string()).unwrap();
    let held = File::open(&path).unwrap();
    held.try_lock().unwrap();
    assert_locked(&path, "process", 0);
    drop(held);
    TagLock::acquire(&path, Duration::from_secs(1)).unwrap();
}

#[test]
fn a_lock_that_was_taken_away_is_noticed_and_the_next_one_left_alone() {
    let (_directory, path) = lock_path();
    let lost = TagLock::acquire(&path, LONG).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(lost.check_held().is_err());
    let next = TagLock::acquire(&path, LONG).unwrap();
    assert!(lost.check_held().is_err());
    drop(lost);
    next.check_held().unwrap();
}

#[test]
fn what_is_no_lock_file_is_named() {
    let (_directory, path) = lock_path();
    fs::create_dir(&path).unwrap();
    let error = TagLock::acquire(&path, LONG).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// Everyone finds the same lock left behind; each then counts one up, without any other care.
#[test]
fn of_many_that_take_over_only_one_wins() {
    let owner = gone().to_string();
    for _ in 0..30 {
        let (directory, path) = lock_path();
        let count = directory.path().join("count");
        fs::write(&count, "0").unwrap();
        fs::write(&path, &owner).unwrap();
        let barrier = Arc::new(Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let lock = TagLock::acquire(&path, LONG).unwrap();
                    let before: u32 = fs::read_to_string(&count).unwrap().parse().unwrap();
                    thread::yield_now();
                    lock.check_held().unwrap();
                    fs::write(&count, (before + 1).to_string()).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&count).unwrap(), "8");
        assert!(!path.exists());
    }
}

/// Killed and waited for when dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hold_in_another_process(path: &Path) -> Holder {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fs::lock::tests::hold_until_killed", "--ignored"])
        .env(HOLD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let holder = Holder(child);
    let deadline = Instant::now() + LONG;
    while open(path).ok().and_then(|file| read_owner(&file)).is_none() {
        assert!(Instant::now() < deadline, "the child never took the lock");
        thread::sleep(Duration::from_millis(5));
    }
    holder
}

#[test]
#[ignore = "run by a_killed_owner_is_succeeded_at_once, in a process of its own"]
fn hold_until_killed() {
    let Some(path) = std::env::var_os(HOLD) else {
        return;
    };
    let _lock = TagLock::acquire(Path::new(&path), LONG).unwrap();
    thread::sleep(LONG);
}

#[test]
fn a_killed_owner_is_succeeded_at_once() {
    let (_directory, path) = lock_path();
    let holder = hold_in_another_process(&path);
    assert_locked(&path, &format!("process {} on ", holder.0.id()), 0);
    drop(holder);
    assert!(path.exists(), "a killed process cannot clean up");
    TagLock::acquire(&path, Duration::from_secs(1)).unwrap();
}

#[test]
#[ignore = "run by one_is_taken_where_there_is_no_proc, in a process of its own"]
fn take_at_once() {
    let Some(path) = std::env::var_os(HOLD) else {
        return;
    };
    let lock = TagLock::acquire(Path::new(&path), Duration::from_secs(1)).unwrap();
    assert!(Path::new(&path).exists());
    drop(lock);
}

#[test]
fn one_is_taken_where_there_is_no_proc() {
    let needs = [Need::Root, Need::Program("unshare")];
    if !need("one_is_taken_where_there_is_no_proc", &needs) {
        return;
    }
    let (_directory, path) = lock_path();
    let hidden = "mount -t tmpfs none /proc && exec \"$@\"";
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c", hidden, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "fs::lock::tests::take_at_once", "--ignored"])
        .env(HOLD, &path)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"));
}
