//! SIGKILL at any moment, of who copies through our server and of the server itself: what is there
//! is never wrong, and running again completes.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use farseek_testkit::mount::Sandbox;
use farseek_testkit::{ChildGuard, Need, Random, need, tree, wait_until, was_killed};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::remote::{TAG, sandbox};

/// Kills of each test of copies, two for each destination: the second while it goes on.
const KILLS: usize = 50;

const SMALL_FILES: u64 = 200;
const LARGE_FILE: u64 = 4 << 20;
const LONG: Duration = Duration::from_secs(30);

/// Addresses that any process may have.
pub(crate) const ANYWHERE: [&str; 2] = ["127.0.0.1:0"; 2];

/// A sandbox whose own repository has the tag, of small files and a large one.
fn with_source() -> Sandbox {
    let sandbox = sandbox();
    sandbox.init();
    let files = sandbox.make_dir("tree");
    let mut random = Random::new(7);
    for number in 0..SMALL_FILES {
        let mut bytes = vec![0; 1 + random.index(8192)];
        random.fill(&mut bytes);
        let folder = files.join((number % 7).to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(number.to_string()), bytes).unwrap();
    }
    tree::write_random(&files.join("large"), LARGE_FILE, 8).unwrap();
    sandbox.commit(&files, TAG);
    sandbox
}

/// `farseek server` of a repository.
pub(crate) struct Served {
    pub(crate) process: ChildGuard,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Served {
    pub(crate) fn start(sandbox: &Sandbox, repository: &str, addresses: [&str; 2]) -> Self {
        let [grpc, http] = addresses;
        let mut command = sandbox.command(&["server", grpc, http, "--json", "-r", repository]);
        let said = sandbox.path().join("server.out");
        let out = fs::File::create(&said).unwrap();
        let log = sandbox.path().join("server.log");
        let log = fs::File::options().create(true).append(true).open(log);
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log.unwrap());
        let process = ChildGuard::spawn(&mut command).unwrap();
        let mut line = Value::Null;
        wait_until("the server says where it is", LONG, || {
            let text = fs::read_to_string(&said).unwrap();
            serde_json::from_str(&text).is_ok_and(|value| {
                line = value;
                true
            })
        });
        let address = |name: &str| {
            let (_, address) = line[name].as_str().unwrap().split_once("://").unwrap();
            address.parse().unwrap()
        };
        Self {
            process,
            grpc: address("grpc"),
            http: address("http"),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.grpc)
    }

    /// Ends it at once, and starts it again where it was.
    fn kill_and_restart(&mut self, sandbox: &Sandbox, repository: &str, pause: Duration) {
        self.process.signal(Signal::SIGKILL).unwrap();
        assert!(was_killed(self.process.wait_within(LONG).unwrap()));
        std::thread::sleep(pause);
        let addresses = [self.grpc.to_string(), self.http.to_string()];
        let [grpc, http] = &addresses;
        *self = Self::start(sandbox, repository, [grpc, http]);
        assert!(TcpStream::connect(self.http).is_ok());
    }
}

/// What a check says of a repository; nothing but missing data may be wrong.
fn checked(sandbox: &Sandbox, repository: &str) -> Value {
    let output = sandbox.run(&["check", "--json", "-r", repository]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for problem in report["problems"].as_array().unwrap() {
        assert_eq!(problem["damage"], "missing", "{problem}");
    }
    report
}

/// One end of a copy is a directory, the other one is behind a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Push,
    Pull,
}

/// A copy from the sandbox's repository to `destination`, through a server of one of the two.
struct Transfer<'a> {
    sandbox: &'a Sandbox,
    direction: Direction,
    destination: PathBuf,
    /// What a check says of the source.
    whole: Value,
}

impl<'a> Transfer<'a> {
    fn new(sandbox: &'a Sandbox, direction: Direction) -> Self {
        Self {
            sandbox,
            direction,
            destination: sandbox.path().join("destination"),
            whole: checked(sandbox, &sandbox.repository().display().to_string()),
        }
    }

    fn destination(&self) -> String {
        self.destination.display().to_string()
    }

    /// An empty destination.
    fn renew(&self) {
        let _ = fs::remove_dir_all(&self.destination);
        self.sandbox.succeed(&["init", "repo", &self.destination()]);
    }

    /// The repository that is behind the server.
    fn served(&self) -> String {
        match self.direction {
            Direction::Push => self.destination(),
            Direction::Pull => self.sandbox.repository().display().to_string(),
        }
    }

    fn serve(&self) -> Served {
        Served::start(self.sandbox, &self.served(), ANYWHERE)
    }

    fn arguments(&self, url: &str) -> Vec<String> {
        let here = self.sandbox.repository().display().to_string();
        let there = self.destination();
        let words = match self.direction {
            Direction::Push => ["push", TAG, "--from", &here, "--to", url],
            Direction::Pull => ["pull", TAG, "--from", url, "--to", &there],
        };
        words.map(str::to_owned).to_vec()
    }

    fn start(&self, url: &str) -> ChildGuard {
        let mut command = self.sandbox.command(&self.arguments(url));
        let quiet = [Stdio::null(), Stdio::null(), Stdio::null()];
        let [stdin, stdout, stderr] = quiet;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        ChildGuard::spawn(&mut command).unwrap()
    }

    fn succeeds(&self, url: &str) {
        self.sandbox.succeed(&self.arguments(url));
    }

    /// The destination has all that the source has, and nothing is wrong with it.
    fn is_complete(&self) {
        let copy = checked(self.sandbox, &self.destination());
        for what in ["sound", "tags", "objects", "payloads", "bytes"] {
            assert_eq!(copy[what], self.whole[what], "{what}");
        }
    }

    /// How much of the destination is there.
    fn files(&self) -> usize {
        let folders = fs::read_dir(self.destination.join("payloads"));
        folders.map_or(0, Iterator::count)
    }
}

/// Kills the one who copies, [`KILLS`] times.
fn kill_copies(direction: Direction) {
    let sandbox = with_source();
    let transfer = Transfer::new(&sandbox, direction);
    transfer.renew();
    let server = transfer.serve();
    let started = Instant::now();
    transfer.succeeds(&server.url());
    let took = started.elapsed();
    drop(server);
    let mut random = Random::new(1);
    let (mut killed, mut partly) = (0, 0);
    for round in 0..KILLS / 2 {
        transfer.renew();
        let server = transfer.serve();
        for at_work in [false, true] {
            let mut copying = transfer.start(&server.url());
            let mut longest = took;
            if at_work {
                // Within the short time in which things become visible, unless it is through.
                let shows = || transfer.files() > 1;
                wait_until("something is visible", LONG, shows);
                longest = took / 8;
            }
            let moment = random.below(u64::try_from(longest.as_micros()).unwrap());
            std::thread::sleep(Duration::from_micros(moment));
            copying.signal(Signal::SIGKILL).unwrap();
            killed += usize::from(was_killed(copying.wait_within(LONG).unwrap()));
            let report = checked(&sandbox, &transfer.destination());
            let has_tag = transfer
                .destination
                .join(format!("tags/{TAG}.tag"))
                .exists();
            assert!(
                !has_tag || report["sound"] == true,
                "round {round}: {report}"
            );
            partly += usize::from(!has_tag && report["payloads"] != 0);
        }
        transfer.succeeds(&server.url());
        transfer.is_complete();
    }
    assert!(killed > KILLS / 3, "{killed} were killed while they ran");
    assert!(partly > 0, "none had stored something, and not all");
}

#[test]
fn a_killed_push_leaves_nothing_wrong_behind_the_server() {
    kill_copies(Direction::Push);
}

#[test]
fn a_killed_pull_from_the_server_leaves_nothing_wrong() {
    kill_copies(Direction::Pull);
}

/// Kills the server under a copy, which ends in order or is completed by the next one.
fn kill_server(direction: Direction) {
    let sandbox = with_source();
    let transfer = Transfer::new(&sandbox, direction);
    transfer.renew();
    let mut server = transfer.serve();
    let started = Instant::now();
    transfer.succeeds(&server.url());
    let took = started.elapsed();
    drop(server);
    let mut random = Random::new(2);
    for _ in 0..8 {
        transfer.renew();
        server = transfer.serve();
        let mut copying = transfer.start(&server.url());
        let moment = random.below(u64::try_from(took.as_micros()).unwrap());
        std::thread::sleep(Duration::from_micros(moment));
        server.kill_and_restart(&sandbox, &transfer.served(), Duration::from_millis(200));
        let ended = copying.wait_within(LONG).unwrap();
        assert!(ended.code().is_some(), "it neither hangs nor dies: {ended}");
        let report = checked(&sandbox, &transfer.destination());
        let has_tag = transfer
            .destination
            .join(format!("tags/{TAG}.tag"))
            .exists();
        assert!(!has_tag || report["sound"] == true, "{report}");
        assert!(has_tag || !ended.success(), "what succeeds is done");
        transfer.succeeds(&server.url());
        transfer.is_complete();
    }
}

#[test]
fn a_push_whose_server_is_killed_is_completed_by_the_next() {
    kill_server(Direction::Push);
}

#[test]
fn a_pull_whose_server_is_killed_is_completed_by_the_next() {
    kill_server(Direction::Pull);
}

#[test]
fn a_mount_reads_on_after_its_server_was_killed_and_started_again() {
    let test = "a_mount_reads_on_after_its_server_was_killed_and_started_again";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    const SIZE: u64 = 96 << 20;
    const PIECE: u64 = 100_000;
    let sandbox = sandbox();
    sandbox.init();
    let files = sandbox.make_dir("tree");
    tree::write_random(&files.join("large"), SIZE, 9).unwrap();
    sandbox.commit(&files, TAG);
    let repository = sandbox.repository().display().to_string();
    let mut server = Served::start(&sandbox, &repository, ANYWHERE);
    let arguments = ["--no-local", "--stall", "20", "--remote", &server.url()];
    let mount = sandbox.mount(TAG, "mnt", &arguments);
    let expected = fs::File::open(files.join("large")).unwrap();
    let found = fs::File::open(mount.path().join("large")).unwrap();
    let same = |at: u64| {
        let (mut one, mut other) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
        expected.read_exact_at(&mut one, at).unwrap();
        let read = found.read_exact_at(&mut other, at);
        read.unwrap_or_else(|error| panic!("at {at}: {error}\n{}", mount.log()));
        assert!(one == other, "at {at}");
    };
    // Each part of the file is new to the mount, some of it read in order and some of it not.
    let mut random = Random::new(3);
    let part = SIZE / 4;
    for number in 0..4 {
        let start = number * part;
        for step in 0..20 {
            same(start + step * PIECE);
        }
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                for _ in 0..20 {
                    same(start + part / 4 + random.below(part / 2));
                }
                for step in 0..20 {
                    same(start + 3 * part / 4 + step * PIECE);
                }
            });
            server.kill_and_restart(&sandbox, &repository, Duration::from_millis(300));
            reading.join().unwrap();
        });
    }
    let again = fs::read(mount.path().join("large")).unwrap();
    assert!(again == fs::read(files.join("large")).unwrap());
    drop(found);
    mount.unmount();
}
