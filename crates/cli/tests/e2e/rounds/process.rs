//! The processes of all workers, any of which may be killed by any worker at any time.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use farseek_testkit::mount::processes_naming;
use farseek_testkit::{ChildGuard, Random, was_killed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No command takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A child of ours.
#[derive(Debug)]
pub(super) struct Process {
    child: Mutex<ChildGuard>,
    output: fs::File,
    struck: AtomicBool,
}

/// How a command has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// What it printed, wherever.
    pub(super) said: String,
}

impl Ended {
    pub(super) fn was_killed(&self) -> bool {
        was_killed(self.status)
    }
}

impl Process {
    /// Kills it, if it still runs.
    pub(super) fn strike(&self) {
        // Before it is done, so that who sees the consequences knows why.
        self.struck.store(true, Ordering::SeqCst);
        // Does nothing to one that has been waited for: its number may be another's.
        let _ = self.child.lock().unwrap().child().kill();
    }

    pub(super) fn is_struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst)
    }

    pub(super) fn try_wait(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    pub(super) fn said(&self) -> String {
        // At a place, for the process may still be writing, and shares ours.
        let length = usize::try_from(self.output.metadata().unwrap().len()).unwrap();
        let mut text = vec![0; length];
        self.output.read_exact_at(&mut text, 0).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits for its end; kills it after `deadline`, if there is one.
    pub(super) fn wait(&self, deadline: Option<Duration>) -> Ended {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait() {
                let said = self.said();
                return Ended { status, said };
            }
            if deadline.is_some_and(|deadline| start.elapsed() > deadline) && !self.is_struck() {
                self.strike();
            }
            assert!(start.elapsed() < PATIENCE, "it hangs: {}", self.said());
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Processes {
    children: Mutex<Vec<Weak<Process>>>,
    /// What those in the background that were killed had been started for: a mount point, a place.
    struck: Mutex<HashSet<PathBuf>>,
}

impl Processes {
    /// Starts one.
    pub(super) fn start(&self, command: &mut Command) -> Arc<Process> {
        let output = tempfile::tempfile().unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output.try_clone().unwrap());
        let process = Arc::new(Process {
            child: Mutex::new(ChildGuard::spawn(command).unwrap()),
            output,
            struck: AtomicBool::new(false),
        });
        let mut children = self.children.lock().unwrap();
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&process));
        process
    }

    /// Whether one in the background was killed that had been started for `place`.
    pub(super) fn is_struck(&self, place: &Path) -> bool {
        self.struck.lock().unwrap().contains(place)
    }

    /// One of them, if there is any.
    pub(super) fn pick(&self, random: &mut Random, sandbox: &Path) -> Option<Victim> {
        if random.once_in(2) {
            let children = self.children.lock().unwrap();
            let there: Vec<_> = children.iter().filter_map(Weak::upgrade).collect();
            return (!there.is_empty()).then(|| Victim::Child(random.pick(&there).clone()));
        }
        let there = in_background(sandbox);
        (!there.is_empty()).then(|| {
            let (pid, place) = random.pick(&there).clone();
            Victim::InBackground(pid, place)
        })
    }

    /// Kills it, if it still runs.
    pub(super) fn strike(&self, victim: &Victim) {
        match victim {
            Victim::Child(process) => process.strike(),
            Victim::InBackground(_, place) => {
                self.struck.lock().unwrap().insert(place.clone());
                victim.signal(Signal::SIGKILL);
            }
        }
    }
}

/// A process that something is done to.
#[derive(Debug)]
pub(super) enum Victim {
    Child(Arc<Process>),
    /// What it was started for.
    InBackground(Pid, PathBuf),
}

impl Victim {
    /// Stops it for a while, in which others go on: it goes on with what it knew before.
    pub(super) fn pause(&self, how_long: Duration) {
        self.signal(Signal::SIGSTOP);
        std::thread::sleep(how_long);
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        match self {
            Self::Child(process) => {
                let mut child = process.child.lock().unwrap();
                // The number of one that has been waited for may be another's.
                if matches!(child.try_wait(), Ok(None)) {
                    let _ = child.signal(signal);
                }
            }
            Self::InBackground(pid, place) => {
                // It is the same process, but for the blink of an eye.
                if place_of(*pid).as_ref() == Some(place) {
                    let _ = kill(*pid, signal);
                }
            }
        }
    }
}

/// Processes of the program in the background, with what they were started for.
pub(super) fn in_background(sandbox: &Path) -> Vec<(Pid, PathBuf)> {
    let pids = processes_naming(sandbox).into_iter();
    pids.filter_map(|pid| Some((pid, place_of(pid)?))).collect()
}

/// The mount point, or the place of a runtime, that a process in the background was started for.
fn place_of(pid: Pid) -> Option<PathBuf> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0').skip(1);
    let is_ours = words.next()? == "--in-background";
    is_ours.then(|| words.next().map(PathBuf::from))?
}
