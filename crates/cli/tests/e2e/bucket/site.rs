//! A bucket as a web site, and as a directory: what was pushed is read without any key.

use std::fs;
use std::path::Path;

use farseek_testkit::{BucketFault, BucketRule, Need, need, output_within, tree};

use super::stand::{SITE, Stand, check, url};
use crate::remote::TAG;

/// A stand with two versions of a tag in the bucket; its tree is the newer one.
fn with_two_versions(tree: &Path) -> Stand {
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/tool"), "#!/bin/sh\necho old\n").unwrap();
    tree::write_random(&tree.join("large"), 3 << 20, 5).unwrap();
    let stand = Stand::with_tree(tree);
    fs::write(tree.join("bin/tool"), "#!/bin/sh\necho new\n").unwrap();
    stand.sandbox.commit(tree, TAG);
    let words = ["push", TAG, "--sync", "--to", &url(SITE)];
    stand.sandbox.succeed(&words);
    stand.server.clear();
    stand
}

/// The web address of the repository.
fn site(stand: &Stand) -> String {
    format!("{}{SITE}", stand.server.site())
}

/// Reads all of both versions without a key; nothing of it asks for more than a web site has.
fn read_without_a_key(stand: &Stand, tree: &Path) {
    let site = site(stand);
    let read = |reference: &str, file: &str| {
        let words = ["cat", reference, file, "-r", &site];
        let mut command = stand.sandbox.command(&words);
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        let output = output_within(&mut command, std::time::Duration::from_secs(60)).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        output.stdout
    };
    assert_eq!(read(TAG, "bin/tool"), b"#!/bin/sh\necho new\n");
    assert_eq!(
        read(&format!("{TAG}~1"), "bin/tool"),
        b"#!/bin/sh\necho old\n"
    );
    let large = fs::read(tree.join("large")).unwrap();
    assert!(read(TAG, "large") == large);
    let requests = stand.server.requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.signed && !request.writes())
    );
}

#[test]
fn what_was_pushed_is_a_web_site() {
    let tree = tempfile::tempdir().unwrap();
    let stand = with_two_versions(tree.path());
    stand.server.set_public(true);
    read_without_a_key(&stand, tree.path());
}

/// S3 says of what is missing that it is forbidden, unless one may list.
#[test]
fn a_site_that_hides_what_it_has_not_is_read_too() {
    let tree = tempfile::tempdir().unwrap();
    let stand = with_two_versions(tree.path());
    stand.server.set_public(true);
    let hides = BucketRule::new("", BucketFault::HideMissing);
    stand.server.set_faults([hides]);
    read_without_a_key(&stand, tree.path());
}

#[test]
fn a_mount_of_the_web_site() {
    if !need("a_mount_of_the_web_site", &[Need::Fuse]) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let stand = with_two_versions(tree.path());
    stand.server.set_public(true);
    let site = site(&stand);
    let mount = stand
        .sandbox
        .mount(TAG, "mnt", &["--no-local", "--remote", &site]);
    let same = |name: &str| {
        let (one, other) = (tree.path().join(name), mount.path().join(name));
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{name}");
    };
    same("large");
    same("bin/tool");
    assert!(
        stand
            .server
            .requests()
            .iter()
            .all(|request| !request.signed)
    );
    mount.unmount();
}

/// The bucket's keys are the names of files on disk.
#[test]
fn a_copy_of_the_bucket_is_a_repository() {
    let tree = tempfile::tempdir().unwrap();
    let stand = with_two_versions(tree.path());
    let copy = stand.sandbox.make_dir("copy");
    copy_tree(&stand.folder(SITE), &copy);
    let path = copy.display().to_string();
    let (there, here) = (stand.checked(SITE), check(&stand.sandbox, &path));
    for what in ["sound", "objects", "payloads", "bytes"] {
        assert_eq!(here[what], there[what], "{what}: {here}");
    }
    let read = stand
        .sandbox
        .succeed(&["cat", TAG, "bin/tool", "-r", &path]);
    assert_eq!(read, "#!/bin/sh\necho new\n");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
