//! Where a bout takes place: two repositories, what serves one of them, and what was done.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Instant;

use farseek_testkit::ChildGuard;
use farseek_testkit::mount::{PROMPT, Sandbox};
use nix::sys::signal::Signal;

use super::pool::Pool;
use super::process::Processes;
use super::tags::Tags;
use crate::killed::{ANYWHERE, Served};
use crate::remote::{sandbox, serve_with};

/// Lines of the trace that are shown of a bout that failed.
const SHOWN: usize = 400;

/// What was tried, how often, and how often it was done.
pub(super) type Successes = BTreeMap<&'static str, [u64; 2]>;

/// A place for one bout.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) pool: Pool,
    pub(super) tags: Tags,
    pub(super) processes: Processes,
    /// The remote repository.
    pub(super) remote: PathBuf,
    /// The same behind a web server, and behind one of SPFS's protocol.
    pub(super) urls: [String; 2],
    /// Held by who pushes through the server: no hold of the repository covers all of that, as the
    /// threshold of a clean does, which is zero here.
    pub(super) pushing: RwLock<()>,
    /// The number of the next environment.
    next: AtomicU64,
    servers: Mutex<Vec<ChildGuard>>,
    is_stopping: AtomicBool,
    began: Instant,
    trace: Mutex<Vec<String>>,
    successes: Mutex<Successes>,
    // Last, when nobody needs it any more.
    pub(super) sandbox: Sandbox,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let sandbox = sandbox();
        sandbox.init();
        let remote = sandbox.path().join("remote");
        let name = remote.display().to_string();
        sandbox.succeed(&["init", "repo", &name]);
        let (web, url) = serve_with(&sandbox, &["-r", &name]);
        let grpc = Served::start(&sandbox, &name, ANYWHERE);
        Self {
            seed,
            pool: Pool::new(seed),
            tags: Tags::default(),
            processes: Processes::default(),
            urls: [url, grpc.url()],
            remote,
            pushing: RwLock::new(()),
            next: AtomicU64::new(1),
            servers: Mutex::new(vec![web, grpc.process]),
            is_stopping: AtomicBool::new(false),
            began: Instant::now(),
            trace: Mutex::default(),
            successes: Mutex::default(),
            sandbox,
        }
    }

    /// A number that no environment has.
    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// A path in the sandbox.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    /// Notes what is done.
    pub(super) fn note(&self, what: impl std::fmt::Display) {
        let line = format!("{:9.3} {what}", self.began.elapsed().as_secs_f64());
        if std::env::var_os("FARSEEK_ROUNDS_TRACE").is_some() {
            show(&line);
        }
        self.trace.lock().unwrap().push(line);
    }

    /// Notes that something was tried, and whether it came to a good end.
    pub(super) fn count(&self, what: &'static str, succeeded: bool) {
        let mut successes = self.successes.lock().unwrap();
        let [tried, done] = successes.entry(what).or_default();
        *tried += 1;
        *done += u64::from(succeeded);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Does the work of one of several, who all stop when one of them fails.
    pub(super) fn stopping_others(&self, work: impl FnOnce()) {
        if let Err(failure) = catch_unwind(AssertUnwindSafe(work)) {
            self.note("FAILED");
            self.is_stopping.store(true, Ordering::SeqCst);
            resume_unwind(failure);
        }
    }

    /// Ends the servers in order.
    pub(super) fn stop_serving(&self) {
        for mut server in self.servers.lock().unwrap().drain(..) {
            server.signal(Signal::SIGTERM).unwrap();
            assert!(server.wait_within(PROMPT).unwrap().success());
        }
    }

    /// Shows what was done in a bout that has failed.
    #[expect(clippy::print_stderr, reason = "shown with the failure of the test")]
    pub(super) fn tell(&self, rounds: u64) {
        let trace = self.trace.lock().unwrap_or_else(|error| error.into_inner());
        for line in &trace[trace.len().saturating_sub(SHOWN)..] {
            eprintln!("{line}");
        }
        let seed = self.seed;
        eprintln!("again by FARSEEK_ROUNDS={rounds} FARSEEK_ROUNDS_SEED={seed}");
    }

    /// How much was done, which is also shown.
    #[expect(
        clippy::print_stderr,
        reason = "the person who runs the tests must see it"
    )]
    pub(super) fn successes(&self) -> Successes {
        let successes = self.successes.lock().unwrap();
        let words = successes
            .iter()
            .map(|(what, [tried, done])| format!("{what} {done}/{tried}"));
        let words: Vec<_> = words.collect();
        let (seed, took) = (self.seed, self.began.elapsed().as_secs());
        eprintln!("seed {seed}: {took} s: {}", words.join(", "));
        successes.clone()
    }
}

#[expect(clippy::print_stderr, reason = "it was asked for")]
fn show(line: &str) {
    eprintln!("{line}");
}
