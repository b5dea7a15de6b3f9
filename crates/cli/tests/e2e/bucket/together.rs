//! Many who push one tag to a bucket at once.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use farseek_testkit::ChildGuard;
use serde_json::Value;

use super::stand::{SITE, Stand, url};

const PUSHES: usize = 100;
const LONG: Duration = Duration::from_secs(150);
const ONE: &str = "test/one";

/// A repository of its own for each push, in which the tag is a layer of its own.
fn sources(stand: &Stand) -> Vec<PathBuf> {
    let tree = stand.sandbox.make_dir("tree");
    let all = stand.sandbox.make_dir("sources");
    let commit = |number: usize| {
        fs::write(tree.join("number"), number.to_string()).unwrap();
        let repository = all.join(number.to_string());
        let path = repository.display().to_string();
        stand.sandbox.succeed(&["init", "repo", &path]);
        let tree = tree.display().to_string();
        stand
            .sandbox
            .succeed(&["commit", &tree, "-t", ONE, "-r", &path]);
        repository
    };
    (0..PUSHES).map(commit).collect()
}

fn log(stand: &Stand, repository: &str) -> Vec<Value> {
    let said = stand
        .sandbox
        .succeed(&["log", ONE, "--json", "-r", repository]);
    serde_json::from_str(&said).unwrap()
}

#[test]
fn of_a_hundred_who_push_one_tag_at_once_none_is_lost() {
    let stand = Stand::new();
    let sources = sources(&stand);
    let start = |source: &PathBuf| {
        let (from, to) = (source.display().to_string(), url(SITE));
        let words = ["push", ONE, "--sync", "--from", &from, "--to", &to];
        let mut command = stand.sandbox.command(&words);
        let said = fs::File::create(source.join("said")).unwrap();
        command.stdout(Stdio::null()).stderr(said);
        ChildGuard::spawn(&mut command).unwrap()
    };
    let pushes: Vec<_> = sources
        .iter()
        .map(|source| (source, start(source)))
        .collect();
    for (source, mut push) in pushes {
        let ended = push.wait_within(LONG).unwrap();
        let said = fs::read_to_string(source.join("said")).unwrap();
        assert!(ended.success(), "{}: {ended}: {said}", source.display());
    }
    let versions = log(&stand, &url(SITE));
    let targets: HashSet<_> = versions.iter().map(|version| &version["target"]).collect();
    let pushed: Vec<_> = sources
        .iter()
        .map(|source| log(&stand, &source.display().to_string())[0].clone())
        .collect();
    assert_eq!((versions.len(), targets.len()), (PUSHES, PUSHES));
    assert!(
        pushed
            .iter()
            .all(|version| targets.contains(&version["target"]))
    );
    let times: Vec<_> = versions
        .iter()
        .map(|version| version["time"].to_string())
        .collect();
    assert!(
        times.is_sorted_by(|newer, older| newer >= older),
        "{times:?}"
    );
    assert_eq!(stand.checked(SITE)["sound"], true);
}
