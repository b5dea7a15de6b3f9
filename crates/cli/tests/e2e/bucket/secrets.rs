//! The secret of a bucket is nowhere but where it was given.

use std::fs;
use std::path::Path;

use farseek_testkit::mount::{PROMPT, is_mounted, processes_naming};
use farseek_testkit::{BucketServer, Need, need, wait_until};

use super::stand::{SITE, Stand, url};
use crate::remote::TAG;

/// Fails where the secret is in `bytes`, as it stands or as it stands in an address.
fn assert_silent(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // The plus sign may be written in three ways: what is before it is enough to know it by.
    let (secret, _) = BucketServer::SECRET_KEY.split_once('+').unwrap();
    assert!(!text.contains(secret), "{what} tells the secret: {text}");
}

/// Every file below `folder`.
fn look_through(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            files += look_through(&path);
        } else if kind.is_file() {
            assert_silent(&path.display().to_string(), &fs::read(&path).unwrap());
            files += 1;
        }
    }
    files
}

/// Runs a command, however it ends, and looks at what it says.
fn tell(stand: &Stand, arguments: &[&str]) {
    let output = stand.sandbox.run(arguments);
    let what = format!("farseek {}", arguments.join(" "));
    assert_silent(&what, &output.stdout);
    assert_silent(&what, &output.stderr);
}

/// Runs everything that has to do with the bucket at `address`, and looks at all it says.
fn tell_everything(stand: &Stand, address: &str) {
    let (to, from) = (
        ["push", TAG, "--to", address],
        ["pull", TAG, "--from", address],
    );
    for flags in [&["-vv"][..], &["-vv", "--json"]] {
        tell(stand, &[&to[..], flags].concat());
        tell(stand, &[&from[..], flags].concat());
    }
    for words in [
        ["config"].as_slice(),
        &["config", "--json"],
        &["check", "-vv", "-r", address],
        &["ls", TAG, "-vv", "-r", address],
        &["tags", "-vv", "-r", address],
        &["push", "no/such-tag", "--to", address],
        &["pull", "no/such-tag", "--from", address],
        &["clean", "--dry-run", "-vv", "-r", address],
    ] {
        tell(stand, words);
    }
}

/// Mounts in the background: the daemon gets what it needs, and neither its command line nor
/// anything it writes has it.
fn mount_and_look(stand: &Stand, address: &str) {
    let mountpoint = stand.sandbox.make_dir("mnt");
    let log = stand.sandbox.path().join("mount.log").display().to_string();
    let mount = mountpoint.display().to_string();
    let words = [
        "mount",
        TAG,
        &mount,
        "-vv",
        "--log-file",
        &log,
        "--no-local",
        "-r",
        address,
    ];
    tell(stand, &words);
    wait_until("it is mounted", PROMPT, || is_mounted(&mountpoint));
    let read = fs::read_to_string(mountpoint.join("file"));
    assert_eq!(read.unwrap(), "the file\n");
    let daemons = processes_naming(&mountpoint);
    assert!(!daemons.is_empty());
    for daemon in daemons {
        let line = fs::read(format!("/proc/{daemon}/cmdline")).unwrap();
        assert_silent("the command line", &line);
    }
    tell(stand, &["stats", &mount]);
    tell(stand, &["stats", &mount, "--json"]);
    tell(stand, &["runtime", "list", "--json"]);
    let files = look_through(stand.sandbox.path());
    assert!(files > 10, "logs, records and caches were looked at");
    tell(stand, &["unmount", &mount]);
    assert!(!is_mounted(&mountpoint));
}

fn with_a_file() -> Stand {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "the file\n").unwrap();
    Stand::with_tree(tree.path())
}

#[test]
fn the_secret_is_in_no_output_log_record_or_command_line() {
    let test = "the_secret_is_in_no_output_log_record_or_command_line";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let mut stand = with_a_file();
    tell_everything(&stand, &url(SITE));
    mount_and_look(&stand, &url(SITE));
    // Who signs with another secret is told so, and not which.
    let wrong = format!("{}x", BucketServer::SECRET_KEY);
    stand.sandbox.set_variable("AWS_SECRET_ACCESS_KEY", &wrong);
    tell(&stand, &["pull", TAG, "-vv", "--from", &url(SITE)]);
    look_through(stand.sandbox.path());
}

#[test]
fn a_secret_in_an_address_goes_no_further() {
    if !need("a_secret_in_an_address_goes_no_further", &[Need::Fuse]) {
        return;
    }
    let mut stand = with_a_file();
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
    ] {
        stand.sandbox.set_variable(name, "");
    }
    let address = format!(
        "{}?endpoint={}&access_key_id={}&secret_access_key={}",
        url(SITE),
        stand.server.endpoint(),
        BucketServer::ACCESS_KEY,
        BucketServer::SECRET_KEY.replace('+', "%2B"),
    );
    tell_everything(&stand, &address);
    mount_and_look(&stand, &address);
    // Nor is an address told that cannot be one.
    tell(&stand, &["tags", "-r", &format!("{address}&regoin=x")]);
    tell(
        &stand,
        &[
            "tags",
            "-r",
            &address.replace("endpoint=http", "endpoint=hppt"),
        ],
    );
    assert!(stand.server.requests().iter().all(|request| request.signed));
}
