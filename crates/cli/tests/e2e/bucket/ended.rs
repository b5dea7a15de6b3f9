//! Those who are asked to end, and leave nothing that others would wait for.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use farseek_testkit::{BucketFault, BucketRule, ChildGuard, tree, wait_until};
use nix::sys::signal::Signal;

use super::stand::{SITE, Stand, url};
use crate::remote::TAG;

const LONG: Duration = Duration::from_secs(60);

/// The names of the keys in a folder of the repository. Notes of the server are none.
fn keys(stand: &Stand, folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(stand.folder(SITE).join(folder)) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.len() == 36).collect()
}

#[test]
fn a_push_that_is_interrupted_holds_a_bucket_no_more() {
    let stand = Stand::new();
    let files = stand.sandbox.make_dir("tree");
    tree::write_random(&files.join("large"), 20 << 20, 41).unwrap();
    stand.sandbox.commit(&files, TAG);
    let stuck = BucketRule::new("UploadPart", BucketFault::Never);
    stand.server.set_faults([stuck]);
    let mut command = stand.sandbox.command(&["push", TAG, "--to", &url(SITE)]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut pushing = ChildGuard::spawn(&mut command).unwrap();
    wait_until("it is at it", LONG, || {
        stand.server.count("UploadPart") > 0 && !keys(&stand, "uploads").is_empty()
    });
    assert_eq!(keys(&stand, "holds").len(), 1);
    pushing.signal(Signal::SIGINT).unwrap();
    assert_eq!(pushing.wait_within(LONG).unwrap().code(), Some(130));
    assert_eq!(keys(&stand, "holds"), [""; 0]);
    assert_eq!(keys(&stand, "uploads"), [""; 0]);
}

#[test]
fn a_server_that_is_ended_holds_a_bucket_no_more() {
    let stand = Stand::new();
    let files = stand.sandbox.make_dir("tree");
    fs::write(files.join("file"), "the file\n").unwrap();
    stand.sandbox.commit(&files, TAG);
    let out = stand.sandbox.path().join("said");
    let words = ["server", "127.0.0.1:0", "127.0.0.1:0", "-r", &url(SITE)];
    let mut command = stand.sandbox.command(&words);
    command.stdout(fs::File::create(&out).unwrap());
    command.stderr(Stdio::null());
    let mut server = ChildGuard::spawn(&mut command).unwrap();
    let said = || fs::read_to_string(&out).unwrap();
    wait_until("it says where it is", LONG, || said().ends_with('\n'));
    let said = said();
    let address = said
        .split_whitespace()
        .find(|word| word.contains("grpc://"));
    let address = address.unwrap().trim_end_matches(',');
    stand.sandbox.succeed(&["push", TAG, "--to", address]);
    assert_eq!(keys(&stand, "holds").len(), 1);
    server.signal(Signal::SIGTERM).unwrap();
    assert!(server.wait_within(LONG).unwrap().success());
    assert_eq!(keys(&stand, "holds"), [""; 0]);
}
