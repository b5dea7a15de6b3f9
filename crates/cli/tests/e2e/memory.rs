//! A mount's memory is what it was told to use, whatever is open.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use farseek_testkit::{Need, need};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::remote::Remote;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const FILES: usize = 1000;
const READERS: usize = 4;

/// What the mount is told, in MiB.
const CACHE: u64 = 32;
const IN_FLIGHT: u64 = 16;

/// What waits for the disk, in MiB: fixed in the reader.
const UNWRITTEN: u64 = 32;

/// Everything else: buffers of connections and of the kernel's requests, and what an allocator
/// keeps of memory that was given back to it. In MiB.
const SLACK: u64 = 48;

/// The most that the process has ever had resident, in bytes.
fn peak(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

fn open_all(directory: &Path) -> Vec<File> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(4096)), hard).unwrap();
    (0..FILES)
        .map(|n| File::open(directory.join(format!("f{n:04}"))).unwrap())
        .collect()
}

/// A page in the middle of every file, and a run at the start of every fifth.
fn read_some(files: &[File]) {
    let mut buffer = vec![0; MIB as usize];
    for (n, file) in files.iter().enumerate() {
        let middle = GIB / 2 + n as u64 % 7 * MIB;
        file.read_exact_at(&mut buffer[..4096], middle).unwrap();
        let run = if n % 5 == 0 { 3 } else { 0 };
        for at in 0..run {
            file.read_exact_at(&mut buffer, at * MIB).unwrap();
        }
    }
}

#[test]
fn a_thousand_open_files_of_a_gibibyte_stay_within_the_limits() {
    let test = "a_thousand_open_files_of_a_gibibyte_stay_within_the_limits";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (remote, layer) = Remote::handmade(|made| {
        for n in 0..FILES {
            made.sparse(&format!("f{n:04}"), GIB, &[]).unwrap();
        }
    });
    let cache = format!("{CACHE}M");
    let in_flight = format!("{IN_FLIGHT}M");
    let limits = [
        "--blob-cache-max-bytes",
        &cache,
        "--in-flight-max-bytes",
        &in_flight,
    ];
    let mut mount = remote.mount(&layer, &limits);
    let process = mount.process().pid();
    let before = peak(process);
    let files = open_all(mount.path());
    thread::scope(|scope| {
        for part in files.chunks(FILES / READERS) {
            scope.spawn(|| read_some(part));
        }
    });
    let grown = peak(process).saturating_sub(before);
    let allowed = (CACHE + IN_FLIGHT + UNWRITTEN + SLACK) * MIB;
    let sent: u64 = remote
        .payload_requests()
        .iter()
        .map(|r| r.body_bytes_sent)
        .sum();
    assert!(sent > 4 * allowed, "only {} MiB came", sent / MIB);
    assert!(
        grown <= allowed,
        "{} MiB more than before, of {} MiB that came",
        grown / MIB,
        sent / MIB
    );
    drop(files);
    mount.unmount();
}
