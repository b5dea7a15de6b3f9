//! The secrets of a bucket are nowhere but where they were given.

use std::fs;
use std::path::Path;

use farseek_testkit::mount::{PROMPT, is_mounted, processes_naming};
use farseek_testkit::{Cloud, Need, need, wait_until};

use super::stand::{SITE, Stand};
use crate::remote::TAG;

/// Fails where one of `secrets` is in `bytes`.
fn assert_silent(secrets: &[String], what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in secrets {
        assert!(secret.len() > 8, "too short to be looked for");
        assert!(!text.contains(secret), "{what} tells a secret: {text}");
    }
}

/// Every file below `folder`.
fn look_through(secrets: &[String], folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            files += look_through(secrets, &path);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert_silent(secrets, &path.display().to_string(), &bytes);
            files += 1;
        }
    }
    files
}

/// Runs a command, however it ends, and looks at what it says.
fn tell(stand: &Stand, arguments: &[&str]) {
    let output = stand.sandbox.run(arguments);
    let what = format!("farseek {}", arguments.join(" "));
    let secrets = stand.server.secrets();
    assert_silent(&secrets, &what, &output.stdout);
    assert_silent(&secrets, &what, &output.stderr);
}

/// Runs everything that has to do with the bucket at `address`, and looks at all it says.
fn tell_everything(stand: &Stand, address: &str) {
    let (to, from) = (
        ["push", TAG, "--to", address],
        ["pull", TAG, "--from", address],
    );
    for flags in [&["-vvv"][..], &["-vvv", "--json"]] {
        tell(stand, &[&to[..], flags].concat());
        tell(stand, &[&from[..], flags].concat());
    }
    for words in [
        ["config"].as_slice(),
        &["config", "--json"],
        &["check", "-vvv", "-r", address],
        &["ls", TAG, "-vvv", "-r", address],
        &["tags", "-vvv", "-r", address],
        &["push", "no/such-tag", "--to", address],
        &["pull", "no/such-tag", "--from", address],
        &["clean", "--dry-run", "-vvv", "-r", address],
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
        "-vvv",
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
        assert_silent(&stand.server.secrets(), "the command line", &line);
    }
    tell(stand, &["stats", &mount]);
    tell(stand, &["stats", &mount, "--json"]);
    tell(stand, &["runtime", "list", "--json"]);
    let files = look_through(&stand.server.secrets(), stand.sandbox.path());
    assert!(files > 10, "logs, records and caches were looked at");
    tell(stand, &["unmount", &mount]);
    assert!(!is_mounted(&mountpoint));
}

fn with_a_file(cloud: Cloud) -> Stand {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "the file\n").unwrap();
    Stand::on_with_tree(cloud, tree.path())
}

/// Secrets that come from the environment.
fn keep_silent(test: &str, cloud: Cloud) {
    if !need(test, &[&[Need::Fuse], cloud.needs()].concat()) {
        return;
    }
    let mut stand = with_a_file(cloud);
    let url = stand.url(SITE);
    tell_everything(&stand, &url);
    mount_and_look(&stand, &url);
    // Who signs with another secret is told so, and not which.
    let (name, another) = stand.server.another_key();
    stand.sandbox.set_variable(name, &another);
    let words = ["pull", TAG, "-vvv", "--from", &url];
    let output = stand.sandbox.run(&words);
    if cloud != Cloud::Google {
        assert_silent(&[another], "the error", &output.stderr);
    }
    tell(&stand, &words);
    look_through(&stand.server.secrets(), stand.sandbox.path());
}

#[test]
fn the_secret_is_in_no_output_log_record_or_command_line() {
    let test = "the_secret_is_in_no_output_log_record_or_command_line";
    keep_silent(test, Cloud::S3);
}

#[test]
fn the_key_of_a_service_account_and_its_tokens_are_nowhere() {
    let test = "the_key_of_a_service_account_and_its_tokens_are_nowhere";
    keep_silent(test, Cloud::Google);
}

#[test]
fn the_key_of_an_account_is_nowhere() {
    keep_silent("the_key_of_an_account_is_nowhere", Cloud::Azure);
}

/// Secrets that come from an address.
fn go_no_further(stand: &mut Stand, parameters: &str) {
    for (name, _) in stand.server.variables() {
        stand.sandbox.set_variable(name, "");
    }
    let address = format!("{}?{parameters}", stand.url(SITE));
    tell_everything(stand, &address);
    mount_and_look(stand, &address);
    // Nor is an address told that cannot be one.
    tell(stand, &["tags", "-r", &format!("{address}&regoin=x")]);
    let no_endpoint = address.replace("endpoint=http", "endpoint=hppt");
    tell(stand, &["tags", "-r", &no_endpoint]);
    assert!(stand.server.requests().iter().all(|request| request.signed));
}

#[test]
fn a_secret_in_an_address_goes_no_further() {
    if need("a_secret_in_an_address_goes_no_further", &[Need::Fuse]) {
        let mut stand = with_a_file(Cloud::S3);
        let parameters = stand.server.parameters();
        go_no_further(&mut stand, &parameters);
    }
}

#[test]
fn a_key_or_a_token_in_an_address_of_azure_goes_no_further() {
    let test = "a_key_or_a_token_in_an_address_of_azure_goes_no_further";
    if !need(test, &[&[Need::Fuse], Cloud::Azure.needs()].concat()) {
        return;
    }
    let mut stand = with_a_file(Cloud::Azure);
    let parameters = stand.server.parameters();
    go_no_further(&mut stand, &parameters);
    stand.sandbox.succeed(&["cache", "clear"]);
    let (kept, _) = parameters.split_once("&access_key=").unwrap();
    let token = stand
        .server
        .sas_token(false)
        .replace('%', "%25")
        .replace('&', "%26");
    fs::remove_dir(stand.sandbox.path().join("mnt")).unwrap();
    go_no_further(&mut stand, &format!("{kept}&sas_token={token}"));
    assert!(
        stand
            .server
            .requests()
            .iter()
            .any(|request| request.query.contains("sig="))
    );
}
