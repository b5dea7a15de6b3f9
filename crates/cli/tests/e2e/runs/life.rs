//! How long a runtime lives, and what is left of it.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use farseek_testkit::mount::{PROMPT, processes_naming};
use farseek_testkit::{ChildGuard, output_within, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::site::{Site, TAG, Who, as_both};

fn process(value: &serde_json::Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap())
}

/// Whether a process runs: one that nobody has waited for does not.
pub(crate) fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
    state.is_some_and(|state| !state.starts_with('Z'))
}

fn wait_for_end(pid: Pid) {
    wait_until("the process has ended", PROMPT, || !runs(pid));
}

#[test]
fn what_the_command_leaves_in_the_background_keeps_it() {
    as_both(
        "what_the_command_leaves_in_the_background_keeps_it",
        |site| {
            // Nothing of the runtime is handed down to it but its namespaces.
            let script = "setsid sh -c 'exec sleep 1000' < /dev/null > /dev/null 2>&1 & echo $!";
            let printed = site.script(&[TAG], script);
            let left = Pid::from_raw(printed.trim().parse().unwrap());
            let record = site.record();
            let host = process(&record["status"]["monitor"]);
            assert!(runs(host));
            let name = record["name"].as_str().unwrap();
            assert_eq!(
                site.succeed(&["join", name, "--", "cat", "/spfs/file"]),
                "the file\n"
            );
            assert_eq!(record["state"], "alive");
            kill(left, Signal::SIGKILL).unwrap();
            wait_for_end(host);
            site.see_it_end();
        },
    );
}

#[test]
fn one_who_joins_keeps_it_too() {
    as_both("one_who_joins_keeps_it_too", |site| {
        let mut first = site.start(&["sleep", "1000"]);
        let record = site.record();
        let (name, host) = (
            record["name"].as_str().unwrap(),
            process(&record["status"]["monitor"]),
        );
        let mut command =
            site.command(&["join", name, "--", "sh", "-c", "echo in; exec sleep 1000"]);
        command.stdout(Stdio::piped());
        let mut second = ChildGuard::spawn(&mut command).unwrap();
        let mut said = [0; 3];
        second
            .child()
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        first.signal(Signal::SIGKILL).unwrap();
        first.wait_within(PROMPT).unwrap();
        assert_eq!(
            site.succeed(&["join", name, "--", "cat", "/spfs/file"]),
            "the file\n"
        );
        assert!(runs(host));
        second.signal(Signal::SIGKILL).unwrap();
        second.wait_within(PROMPT).unwrap();
        wait_for_end(host);
        let output = site.run(&["join", name, "--", "true"]);
        assert!(!output.status.success());
    });
}

#[test]
fn output_ends_with_the_command_whatever_it_leaves() {
    as_both("output_ends_with_the_command", |site| {
        // Of another descriptor of the caller's, too, which the host must not keep.
        let script = format!(
            "\"$FARSEEK\" run {TAG} -- sh -c 'sleep 1000 3>&- > /dev/null 2>&1 & echo $!' 3>&1"
        );
        let mut command = site.other("sh", &["-c", &script]);
        command.stdout(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command).unwrap();
        let mut said = String::new();
        // It would wait for as long as anybody has the pipe.
        child
            .child()
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        kill(Pid::from_raw(said.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    });
}

/// A runtime that goes on, its record, and its host.
fn running(site: &Site) -> (ChildGuard, serde_json::Value, Pid) {
    running_as(site, &[TAG])
}

/// The same, started with `words`.
fn running_as(site: &Site, words: &[&str]) -> (ChildGuard, serde_json::Value, Pid) {
    let words = ["run"].iter().chain(words).chain(&["--", "sleep", "1000"]);
    let words: Vec<_> = words.copied().collect();
    let child = ChildGuard::spawn(&mut site.command(&words)).unwrap();
    let record = site.record();
    let host = process(&record["status"]["monitor"]);
    assert_eq!(process(&record["status"]["owner"]), child.pid());
    // The record is complete a moment before the front is told, and becomes the command.
    let name = format!("/proc/{}/comm", child.pid());
    let is_command = || std::fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n");
    wait_until("the command runs", PROMPT, is_command);
    (child, record, host)
}

#[test]
fn a_command_that_is_killed_leaves_nothing() {
    as_both("a_command_that_is_killed_leaves_nothing", |site| {
        let (mut child, _, host) = running(site);
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
        wait_for_end(host);
        site.see_it_end();
    });
}

#[test]
fn a_host_that_is_killed_is_put_right_by_prune() {
    as_both("a_host_that_is_killed_is_put_right", |site| {
        let (mut child, record, host) = running(site);
        let name = record["name"].as_str().unwrap();
        kill(host, Signal::SIGKILL).unwrap();
        wait_for_end(host);
        // Whoever is in it is told, and does not wait.
        let output = site.run(&["join", name, "--", "cat", "/spfs/file"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("not connected"),
            "{said}"
        );
        // As long as somebody is in it, it stays.
        site.succeed(&["runtime", "prune"]);
        assert_eq!(site.records(), [name]);
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
        assert_eq!(
            site.succeed(&["runtime", "prune"]),
            format!("removed {name}\n")
        );
        assert!(site.directories().is_empty() && site.records().is_empty());
    });
}

#[test]
fn a_runtime_without_its_host_is_left_alone_by_who_works_on_another_repository() {
    as_both("a_runtime_without_its_host_is_left_alone", |site| {
        let other = site.make_dir("other");
        let elsewhere = |words: &[&str]| {
            let mut command = site.command(words);
            command.env("FARSEEK_STORAGE_ROOT", &other);
            let output = output_within(&mut command, PROMPT).unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        };
        elsewhere(&["init", "repo", other.to_str().unwrap()]);
        let (mut child, record, host) = running(site);
        let name = record["name"].as_str().unwrap();
        kill(host, Signal::SIGKILL).unwrap();
        wait_for_end(host);
        elsewhere(&["runtime", "prune"]);
        assert_eq!(site.directories(), [name]);
        elsewhere(&["run", "-", "--", "true"]);
        wait_until("it alone is left", PROMPT, || site.directories() == [name]);
        site.succeed(&["runtime", "prune"]);
        assert_eq!(site.records(), [name]);
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
        elsewhere(&["runtime", "prune"]);
        assert_eq!(site.directories(), [] as [&str; 0]);
        site.succeed(&["runtime", "prune"]);
    });
}

#[test]
fn what_is_kept_is_written_to_by_one_runtime_whoever_is_killed() {
    as_both("what_is_kept_is_written_to_by_one", |site| {
        let words = ["--keep", "--runtime-name", "kk"];
        let words = [&["--backend", "renders"], &words[..], &[TAG]].concat();
        let (mut child, _, host) = running_as(site, &words);
        kill(host, Signal::SIGKILL).unwrap();
        wait_for_end(host);
        let other = site.make_dir("elsewhere");
        let changes = site.sandbox.repository().join("durable_edits/kk/upper");
        for words in [
            &["run", "--rerun", "kk", "-", "--", "true"][..],
            &["runtime", "remove", "--remove-durable", "kk"],
        ] {
            for is_elsewhere in [true, false] {
                let mut command = site.command(words);
                if is_elsewhere {
                    command.env("XDG_RUNTIME_DIR", &other);
                }
                let output = output_within(&mut command, PROMPT).unwrap();
                assert_eq!(output.status.code(), Some(9), "{words:?}: {output:?}");
            }
        }
        assert!(changes.is_dir() && runs(child.pid()));
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
        site.succeed(&["run", "--rerun", "kk", "-", "--", "true"]);
        // It waits for the host, which tidies up.
        site.succeed(&["runtime", "remove", "--remove-durable", "kk"]);
        assert!(!changes.exists());
    });
}

#[test]
fn a_kept_runtime_whose_host_was_killed_as_it_began_can_be_run_again() {
    as_both("a_kept_runtime_whose_host_was_killed", |site| {
        site.script(
            &["--keep", "--runtime-name", "kept", TAG],
            "echo 1 > /spfs/new",
        );
        site.see_it_rest("kept");
        // What such a host has left: no record says so.
        let left = || site.make_dir("run/farseek/kept");
        left();
        let said = site.script(&["--rerun", "kept", "-"], "cat /spfs/new");
        assert_eq!(said, "1\n");
        site.see_it_rest("kept");
        left();
        site.succeed(&["runtime", "prune"]);
        assert_eq!(site.directories(), [] as [&str; 0]);
        site.succeed(&["runtime", "remove", "--remove-durable", "kept"]);
    });
}

#[test]
fn who_has_another_root_in_a_runtime_keeps_it() {
    as_both("who_has_another_root_in_a_runtime", |site| {
        if site.who() != Who::Root {
            return;
        }
        let root = site.make_dir("root");
        // The list of mounts below another root names only what is mounted there.
        let script = format!(
            "cd {}; for name in usr lib lib64; do mkdir $name; mount --rbind /$name $name; done; \
             setsid chroot . /usr/bin/sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!",
            root.display()
        );
        let printed = site.script(&[TAG], &script);
        let left = Pid::from_raw(printed.trim().parse().unwrap());
        let comm = format!("/proc/{left}/comm");
        let is_inside = || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n");
        wait_until("it is inside", PROMPT, is_inside);
        let record = site.record();
        let host = process(&record["status"]["monitor"]);
        kill(host, Signal::SIGKILL).unwrap();
        wait_for_end(host);
        site.succeed(&["runtime", "prune"]);
        assert_eq!(site.records(), [record["name"].as_str().unwrap()]);
        kill(left, Signal::SIGKILL).unwrap();
        wait_for_end(left);
        site.succeed(&["runtime", "prune"]);
    });
}

#[test]
fn a_host_that_ends_before_its_runtime_leaves_the_record_to_prune() {
    as_both("a_host_that_ends_before_its_runtime", |site| {
        let (mut child, record, host) = running(site);
        let name = record["name"].as_str().unwrap();
        // Asked twice it does not wait. Two signals that come at once are one.
        wait_until("the host has ended", PROMPT, || {
            kill(host, Signal::SIGTERM).ok();
            !runs(host)
        });
        assert!(runs(child.pid()));
        site.succeed(&["runtime", "prune"]);
        assert_eq!(site.records(), [name]);
        assert_eq!(site.directories(), [name]);
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
        let printed = site.succeed(&["runtime", "prune"]);
        assert_eq!(printed, format!("removed {name}\n"));
    });
}

#[test]
fn all_that_are_killed_at_once_are_put_right_by_the_next() {
    as_both("all_that_are_killed_at_once", |site| {
        let (mut child, record, host) = running(site);
        kill(host, Signal::SIGKILL).unwrap();
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
        wait_for_end(host);
        let name = record["name"].as_str().unwrap().to_owned();
        assert_eq!(site.records(), [name.as_str()]);
        assert_eq!(site.directories(), [name.as_str()]);
        let other = site.start(&["sleep", "1000"]);
        let mut next = site.start(&["sleep", "1000"]);
        wait_until("what was left is gone", PROMPT, || {
            !site.records().contains(&name) && !site.directories().contains(&name)
        });
        // Those of others who live are left alone.
        wait_until("there are two", PROMPT, || site.records().len() == 2);
        assert!(runs(other.pid()));
        next.signal(Signal::SIGKILL).unwrap();
        next.wait_within(PROMPT).unwrap();
        drop(other);
    });
}

#[test]
fn what_was_killed_goes_with_its_directory_whoever_removes_it() {
    as_both("what_was_killed_goes_with_its_directory", |site| {
        for remove in [&["clean", "--yes", "--min-age", "0s"][..], &["rt", "rm"]] {
            let (mut child, record, host) = running(site);
            let name = record["name"].as_str().unwrap();
            kill(host, Signal::SIGKILL).unwrap();
            child.signal(Signal::SIGKILL).unwrap();
            child.wait_within(PROMPT).unwrap();
            wait_for_end(host);
            assert_eq!(site.directories(), [name]);
            let named = (remove[0] == "rt").then_some(name);
            let words: Vec<_> = remove.iter().copied().chain(named).collect();
            site.succeed(&words);
            assert_eq!(site.directories(), [] as [&str; 0], "{words:?}");
            assert_eq!(site.records(), [] as [&str; 0], "{words:?}");
        }
    });
}

#[test]
fn a_front_that_is_killed_while_it_starts_leaves_nothing() {
    as_both("a_front_that_is_killed_while_it_starts", |site| {
        for wait in 0..12 {
            let mut child = site.start(&["sleep", "1000"]);
            std::thread::sleep(Duration::from_millis(wait));
            child.signal(Signal::SIGKILL).unwrap();
            child.wait_within(PROMPT).unwrap();
        }
        site.see_it_end();
    });
}

#[test]
fn a_host_that_is_asked_to_end_while_it_starts_leaves_nothing() {
    as_both("a_host_that_is_asked_to_end_while_it_starts", |site| {
        let at = site.make_dir("at");
        let at_name = at.display().to_string();
        let words = ["run", TAG, "--at", &at_name, "--", "sleep", "1000"];
        for wait in 0..24 {
            let mut child = ChildGuard::spawn(&mut site.command(&words)).unwrap();
            let mut host = None;
            wait_until("there is a host", PROMPT, || {
                let mut named = processes_naming(&at).into_iter();
                host = named.find(|pid| *pid != child.pid());
                host.is_some()
            });
            let host = host.unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            kill(host, Signal::SIGTERM).ok();
            // One that serves already goes on for as long as somebody is inside.
            std::thread::sleep(Duration::from_millis(20));
            child.signal(Signal::SIGKILL).ok();
            child.wait_within(PROMPT).unwrap();
            wait_until("no host is left", PROMPT, || {
                processes_naming(&at).is_empty()
            });
            // Nobody has pruned.
            assert_eq!(site.records(), [] as [&str; 0], "{wait}");
            assert_eq!(site.directories(), [] as [&str; 0], "{wait}");
        }
    });
}

#[test]
fn a_live_runtime_goes_on_whatever_is_written_into_its_record() {
    as_both("a_live_runtime_goes_on", |site| {
        let (mut child, mut record, _) = running(site);
        let name = record["name"].as_str().unwrap().to_owned();
        record["farseek"]["holders"] = serde_json::json!([{ "pid": 4_000_000, "start": 1 }]);
        site.write("forged.json", &record.to_string());
        let tag = format!("spfs/runtimes/meta/{name}");
        site.succeed(&["write", "--tag", &tag, "--file", "forged.json"]);
        site.succeed(&["runtime", "prune"]);
        let removed = site.run(&["runtime", "remove", &name]);
        assert_eq!(removed.status.code(), Some(9), "{removed:?}");
        assert_eq!(site.directories(), [name.as_str()]);
        assert_eq!(site.records(), [name.as_str()]);
        assert_eq!(child.try_wait().unwrap(), None);
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
    });
}

#[test]
fn a_name_is_for_one() {
    as_both("a_name_is_for_one", |site| {
        let words = ["run", TAG, "--runtime-name", "mine", "--", "sleep", "1000"];
        let mut child = ChildGuard::spawn(&mut site.command(&words)).unwrap();
        assert_eq!(site.record()["name"], "mine");
        for wrong in ["..", "../mine", "a b", ""] {
            let output = site.run(&["run", TAG, "--runtime-name", wrong, "--", "true"]);
            assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        }
        // Nor where its directory would be another.
        let words = ["run", TAG, "--runtime-name", "mine", "--", "true"];
        let mut elsewhere = site.command(&words);
        elsewhere.env("XDG_RUNTIME_DIR", site.make_dir("elsewhere"));
        let output = output_within(&mut elsewhere, PROMPT).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("mine"), "{said}");
        let output = site.run(&["run", TAG, "--runtime-name", "mine", "--", "true"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("mine"), "{said}");
        assert_eq!(
            site.succeed(&["join", "mine", "--", "cat", "/spfs/file"]),
            "the file\n"
        );
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
    });
}
