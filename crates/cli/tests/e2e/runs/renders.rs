//! Environments that are read from renders: what is seen is what `render` writes to a directory,
//! where layers hide something of others too, and a clean takes nothing of it.

use std::fs;
use std::path::{Path, PathBuf};

use farseek_testkit::mount::PROMPT;
use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{ChildGuard, output_within, wait_until};

use super::oracle::own;
use super::site::{Site, TAG, as_both};

/// Says with which directory the worker is to compare the environment.
const TASK: &str = "TEST_OF_RENDERS";

const SPFS: &str = "/spfs";

/// The part that runs inside a runtime. Renders have files of several names, so that the copy, which
/// has none, is not the oracle but what is compared.
pub(crate) fn worker() {
    let plain = PathBuf::from(std::env::var_os(TASK).unwrap());
    let options = Options {
        operations: 400,
        processes: 2,
        ..Options::default()
    };
    let report = oracle::run(Path::new(SPFS), &plain, &options);
    let report = report.unwrap_or_else(|difference| panic!("{difference}"));
    assert_eq!(report.operations, 800);
}

/// Renders an environment into a directory, and has it compared with what a runtime shows.
fn compare(site: &Site, reference: &str, more: &[&str]) {
    let program = site.path("worker");
    if !program.exists() {
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let plain = site.make_dir("plain");
    site.succeed(&["render", "--set-id", reference, plain.to_str().unwrap()]);
    let script = "set -e; \"$0\" renders_worker --exact --ignored --nocapture > tmp/said 2>&1 || \
                  { cat tmp/said; exit 1; }; grep -q '1 passed' tmp/said; \
                  grep -q ' - overlay farseek-renders ro,' /proc/self/mountinfo";
    let words = ["run", "--backend", "renders"].into_iter();
    let words = words.chain(more.iter().copied()).chain([reference]);
    let mut words: Vec<&str> = words.chain(["--", "sh", "-c", script]).collect();
    let program = program.display().to_string();
    words.push(&program);
    let mut command = site.command(&words);
    command.env(TASK, &plain);
    let output = output_within(&mut command, PROMPT).unwrap();
    let said = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    assert!(
        output.status.success(),
        "{reference}: {}{}",
        said[0],
        said[1]
    );
    remove(&plain);
}

/// Removes a directory, some of which may be closed.
fn remove(directory: &Path) {
    farseek_runtime::record::remove_tree(directory).unwrap();
}

/// A layer with everything, one that hides some of it, and one that shows some of that again.
fn make_layers(site: &Site) {
    let base = site.make_dir("base");
    let shape = TreeOptions {
        crowd: 100,
        ..TreeOptions::default()
    };
    fs::create_dir(base.join("generated")).unwrap();
    tree::generate(&base.join("generated"), &shape).unwrap();
    for name in [
        "a/a", "a/b", "b/c/d", "b/c/a", "c", "d/e f", "x/y/z/a", "x/w",
    ] {
        site.write(&format!("base/{name}"), name);
    }
    own(site, "base");
    site.commit("base", "test/base");
    let hide = "rm -r /spfs/b /spfs/c /spfs/x/y/z /spfs/a/a; rm -r /spfs/d; echo file > /spfs/d; \
                chmod 711 /spfs/x; \"$FARSEEK\" commit layer -t test/hide > /dev/null";
    site.script(&["test/base", "--edit"], hide);
    let again = "mkdir -p /spfs/b/c /spfs/x/y/z; echo new > /spfs/b/c/new; echo z > /spfs/x/y/z/z; \
                 rm /spfs/d; mkdir -m 750 /spfs/d; echo f > /spfs/d/f; \
                 \"$FARSEEK\" commit layer -t test/again > /dev/null";
    site.script(&["test/base+test/hide", "--edit"], again);
}

#[test]
fn what_is_seen_is_what_is_rendered() {
    as_both("what_is_seen_is_what_is_rendered", |site| {
        make_layers(site);
        compare(site, TAG, &[]);
        compare(site, "test/base", &[]);
        compare(site, "test/base+test/hide", &[]);
        compare(site, "test/base+test/hide+test/again", &[]);
        compare(site, "test/base+test/hide+test/again", &["--edit"]);
    });
}

#[test]
fn it_is_read_only_unless_it_is_edited() {
    as_both("it_is_read_only_unless_it_is_edited", |site| {
        let renders = ["--backend", "renders", TAG];
        let refused =
            "! touch /spfs/file 2> /dev/null; ! rm /spfs/file 2> /dev/null; cat /spfs/file";
        assert_eq!(site.script(&renders, refused), "the file\n");
        let edit = "echo more >> /spfs/file; rm /spfs/dir/one; chmod 600 /spfs/dir/two; \
                    \"$FARSEEK\" commit layer -t test/edited > /dev/null; cat /spfs/file";
        let editable = ["--backend", "renders", "--edit", TAG];
        assert_eq!(site.script(&editable, edit), "the file\nmore\n");
        // What was written to is a copy: renders, and payloads, are as they were.
        assert_eq!(site.script(&renders, "cat /spfs/file"), "the file\n");
        let later = "\"$FARSEEK\" edit > /dev/null; echo x > /spfs/new; \"$FARSEEK\" reset > /dev/null; \
                     ! test -e /spfs/new; cat /spfs/file";
        assert_eq!(site.script(&renders, later), "the file\n");
        let both = format!("{TAG}+test/edited");
        let seen = "cat /spfs/file; ! test -e /spfs/dir/one; stat -c %a /spfs/dir/two";
        let seen = site.script(&["--backend", "OverlayFsWithRenders", &both], seen);
        assert_eq!(seen, "the file\nmore\n600\n");
    });
}

#[test]
fn renders_of_a_runtime_outlive_every_clean_and_go_after_it() {
    as_both("renders_of_a_runtime_outlive_every_clean", |site| {
        site.write("more/of it", "kept while it runs\n");
        site.commit("more", "test/more");
        let words = ["run", "--backend", "renders", "test/more", "--", "sh", "-c"];
        let script = "touch tmp/ready; while test -d tmp -a ! -e tmp/go; do sleep 0.05; done; \
                      cat '/spfs/of it' > tmp/seen";
        let words: Vec<&str> = words.into_iter().chain([script]).collect();
        let mut running = ChildGuard::spawn(&mut site.command(&words)).unwrap();
        wait_until("it runs", PROMPT, || site.path("tmp/ready").exists());
        let clean = ["clean", "--yes", "--min-age", "0s"];
        site.succeed(&["untag", "--all", "test/more"]);
        site.succeed(&clean);
        site.succeed(&clean);
        let files = || rendered(site, "of it");
        assert_eq!(files(), 1);
        fs::write(site.path("tmp/go"), "").unwrap();
        assert!(running.wait_within(PROMPT).unwrap().success());
        let seen = fs::read_to_string(site.path("tmp/seen")).unwrap();
        assert_eq!(seen, "kept while it runs\n");
        site.see_it_end();
        site.succeed(&clean);
        assert_eq!(files(), 0);
    });
}

/// Files of that name in the renders of the user.
fn rendered(site: &Site, name: &str) -> usize {
    let place = site.path("home/.local/share/spfs/renders");
    let mut find = site.other("find", &[&*place.to_string_lossy(), "-name", name]);
    let found = find.output().unwrap().stdout;
    String::from_utf8(found).unwrap().lines().count()
}

/// A runtime of renders whose host and whose command are gone, and in which `wait` goes on: its
/// name.
fn orphaned(site: &Site, wait: &str) -> String {
    let script = format!(
        "setsid {wait} sh -c 'while test -d tmp -a ! -e tmp/go; do sleep 0.05; done; \
         cat \"/spfs/of it\" > tmp/seen' < /dev/null > /dev/null 2> tmp/said & echo"
    );
    site.script(&["--backend", "renders", "test/more"], &script);
    let record = site.record();
    let host = record["status"]["monitor"].as_i64().unwrap();
    let host = nix::unistd::Pid::from_raw(i32::try_from(host).unwrap());
    nix::sys::signal::kill(host, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the host has ended", PROMPT, || !super::life::runs(host));
    record["name"].as_str().unwrap().to_owned()
}

#[test]
fn renders_outlive_every_clean_while_anybody_is_in_the_runtime() {
    let program = [farseek_testkit::Need::Program("unshare")];
    if !farseek_testkit::need("renders_outlive_every_clean", &program) {
        return;
    }
    as_both("renders_outlive_every_clean", |site| {
        // In namespaces of its own it is as much in it: they have the same mounts.
        for (wait, content) in [("", "one\n"), ("unshare --user --mount", "two\n")] {
            site.write("more/of it", content);
            site.commit("more", "test/more");
            let name = orphaned(site, wait);
            site.succeed(&["untag", "--all", "test/more"]);
            site.succeed(&["runtime", "prune"]);
            let removed = site.run(&["runtime", "remove", &name]);
            assert_eq!(removed.status.code(), Some(9), "{removed:?}");
            // The next one reaps, in its own time.
            site.script(&[TAG], "sleep 0.3");
            let clean = ["clean", "--yes", "--min-age", "0s"];
            site.succeed(&clean);
            site.succeed(&clean);
            assert_eq!(rendered(site, "of it"), 1, "{wait}");
            let records = site.records();
            assert!(records.contains(&name), "{records:?}");
            let kept = site.directories();
            assert!(kept.contains(&name), "{kept:?}");
            fs::write(site.path("tmp/go"), "").unwrap();
            let seen = || fs::read_to_string(site.path("tmp/seen")).unwrap_or_default();
            wait_until("it has read", PROMPT, || seen() == content);
            wait_until("nobody is in it", PROMPT, || {
                site.succeed(&["runtime", "prune"]);
                site.records().is_empty() && site.directories().is_empty()
            });
            site.succeed(&clean);
            assert_eq!(rendered(site, "of it"), 0, "{wait}");
            fs::remove_file(site.path("tmp/go")).unwrap();
            fs::remove_file(site.path("tmp/seen")).unwrap();
        }
    });
}

#[test]
fn without_a_local_repository_there_are_no_renders() {
    as_both("without_a_local_repository_there_are_no_renders", |site| {
        let remote = site.path("home/.local/share/spfs");
        let remote = remote.to_str().unwrap();
        let words = [
            "run",
            "--backend",
            "renders",
            "--no-local",
            "--remote",
            remote,
            TAG,
        ];
        let words: Vec<&str> = words.into_iter().chain(["--", "true"]).collect();
        let output = site.run(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("needs the local repository"), "{said}");
    });
}
