//! Records of mounts, with the real program: there as long as the mount is, and no longer.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use farseek_testkit::mount::{PROMPT, Sandbox, is_mounted, processes_naming};
use farseek_testkit::{Need, need, wait_until};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::remote::{Remote, handmade_in, sandbox};

const PATIENCE: Duration = Duration::from_secs(20);

/// The records of the sandbox's local repository.
pub(crate) fn list(sandbox: &Sandbox) -> Vec<Value> {
    let text = sandbox.succeed(&["runtime", "list", "--json"]);
    serde_json::from_str(&text).unwrap()
}

/// The one record.
fn the_record(sandbox: &Sandbox) -> Value {
    let mut records = list(sandbox);
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

/// All that the one record says.
fn whole_record(sandbox: &Sandbox) -> Value {
    let record = the_record(sandbox);
    let name = record["name"].as_str().unwrap();
    let text = sandbox.succeed(&["runtime", "info", name]);
    serde_json::from_str(&text).unwrap()
}

fn prune(sandbox: &Sandbox) -> Value {
    let text = sandbox.succeed(&["runtime", "prune", "--json"]);
    serde_json::from_str(&text).unwrap()
}

/// Stores `record` under `name` as somebody else may have.
pub(crate) fn store(sandbox: &Sandbox, name: &str, mut record: Value) {
    record["name"] = name.into();
    let file = sandbox.path().join("record.json");
    fs::write(&file, record.to_string()).unwrap();
    let tag = format!("spfs/runtimes/meta/{name}");
    sandbox.succeed(&["write", "--tag", &tag, "--file", file.to_str().unwrap()]);
}

/// A sandbox with an environment in its local repository.
fn with_environment() -> (Sandbox, String) {
    let sandbox = sandbox();
    let layer = handmade_in(&sandbox, |made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    (sandbox, layer)
}

#[test]
fn a_mount_has_a_record_as_long_as_it_lives() {
    if !need("a_mount_has_a_record_as_long_as_it_lives", &[Need::Fuse]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    let mut mount = sandbox.mount(&layer, "mnt", &[]);
    let record = the_record(&sandbox);
    assert_eq!(record["state"], "alive");
    assert_eq!(record["reference"], layer.as_str());
    assert_eq!(record["mountpoint"], mount.path().to_str().unwrap());
    assert_eq!(record["owner"], mount.process().pid().as_raw());
    let whole = whole_record(&sandbox);
    assert_eq!(whole["status"]["stack"], json!([layer]));
    assert_eq!(whole["status"]["running"], true);
    let name = record["name"].as_str().unwrap();
    let shown = sandbox.succeed(&["runtime", "list"]);
    assert!(shown.starts_with(&format!("{name}  alive  ")), "{shown}");
    assert_eq!(sandbox.succeed(&["rt", "ls", "-q"]), format!("{name}\n"));
    // It is in use: nobody takes it away by mistake.
    assert_eq!(prune(&sandbox)["removed"], json!([]));
    let refused = sandbox.run(&["runtime", "remove", name]);
    assert_eq!(refused.status.code(), Some(9));
    mount.unmount();
    // Without waiting: `unmount` has done so.
    assert_eq!(list(&sandbox), Vec::<Value>::new());
}

#[test]
fn however_a_mount_ends_its_record_goes() {
    if !need("however_a_mount_ends_its_record_goes", &[Need::Fuse]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    let mut mount = sandbox.mount(&layer, "by-signal", &[]);
    mount.process().signal(Signal::SIGTERM).unwrap();
    mount.process().wait_within(PATIENCE).unwrap();
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    let mut mount = sandbox.mount(&layer, "by-another", &[]);
    the_record(&sandbox);
    let mut program = std::process::Command::new("umount");
    match nix::unistd::geteuid().is_root() {
        true => program.arg(mount.path()),
        false => {
            program = std::process::Command::new("fusermount3");
            program.arg("-u").arg(mount.path())
        }
    };
    assert!(program.status().unwrap().success());
    mount.process().wait_within(PATIENCE).unwrap();
    assert_eq!(list(&sandbox), Vec::<Value>::new());
}

#[test]
fn a_mount_without_the_local_repository_has_no_record() {
    let test = "a_mount_without_the_local_repository_has_no_record";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (remote, layer) = Remote::handmade(|made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    let mount = remote.mount(&layer, &[]);
    assert_eq!(list(&remote.sandbox), Vec::<Value>::new());
    mount.unmount();
}

#[test]
fn a_killed_mount_leaves_a_record_that_prune_removes_with_the_mount() {
    let test = "a_killed_mount_leaves_a_record_that_prune_removes_with_the_mount";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    let mut killed = sandbox.mount(&layer, "killed", &[]);
    let other = sandbox.mount(&layer, "other", &[]);
    killed.process().signal(Signal::SIGKILL).unwrap();
    killed.process().wait_within(PATIENCE).unwrap();
    let states = |sandbox: &Sandbox| {
        let records = list(sandbox).into_iter();
        let mut states: Vec<_> = records.map(|r| r["state"].to_string()).collect();
        states.sort();
        states
    };
    assert_eq!(states(&sandbox), [r#""alive""#, r#""ended""#]);
    assert!(is_mounted(killed.path()));
    let pruned = prune(&sandbox);
    assert_eq!(pruned["removed"].as_array().unwrap().len(), 1, "{pruned}");
    assert!(!is_mounted(killed.path()));
    // The other one is as it was.
    assert_eq!(states(&sandbox), [r#""alive""#]);
    assert_eq!(fs::read(other.path().join("file")).unwrap(), b"the file\n");
    other.unmount();
    drop(killed);
    assert_eq!(list(&sandbox), Vec::<Value>::new());
}

#[test]
fn the_next_unmount_and_the_next_mount_remove_what_a_killed_one_left() {
    let test = "the_next_unmount_and_the_next_mount_remove_what_a_killed_one_left";
    if !need(test, &[Need::Fuse, Need::Root]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    let mut killed = sandbox.mount(&layer, "one", &[]);
    killed.process().signal(Signal::SIGKILL).unwrap();
    killed.process().wait_within(PATIENCE).unwrap();
    assert_eq!(the_record(&sandbox)["state"], "ended");
    // Dead as it is, it is still mounted, and the next mount has no business with it.
    let next = sandbox.mount(&layer, "two", &[]);
    next.unmount();
    assert!(is_mounted(killed.path()));
    assert_eq!(the_record(&sandbox)["state"], "ended");
    sandbox.succeed(&["unmount", killed.path().to_str().unwrap()]);
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    drop(killed);

    let mut killed = sandbox.mount(&layer, "three", &[]);
    killed.process().signal(Signal::SIGKILL).unwrap();
    killed.process().wait_within(PATIENCE).unwrap();
    umount2(killed.path(), MntFlags::MNT_DETACH).unwrap();
    let left = the_record(&sandbox)["name"].clone();
    let next = sandbox.mount(&layer, "four", &[]);
    wait_until("the next mount has removed it", PATIENCE, || {
        list(&sandbox).iter().all(|record| record["name"] != left)
    });
    next.unmount();
    assert_eq!(list(&sandbox), Vec::<Value>::new());
}

/// What makes a record another one.
type Change = fn(&mut Value);

/// Prunes records that differ from a living mount's by `changes`, and returns which of them go.
fn pruned_of(changes: &[(&str, Change)]) -> Vec<String> {
    let (sandbox, layer) = with_environment();
    let mount = sandbox.mount(&layer, "mnt", &[]);
    let whole = whole_record(&sandbox);
    for (name, change) in changes {
        let mut record = whole.clone();
        change(&mut record);
        store(&sandbox, name, record);
    }
    let pruned = prune(&sandbox);
    assert_eq!(pruned["failed"], json!([]), "{pruned}");
    let removed = pruned["removed"].as_array().unwrap().iter();
    let removed = removed
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    assert!(is_mounted(mount.path()), "the living mount is let alone");
    assert!(fs::read(mount.path().join("file")).is_ok());
    mount.unmount();
    removed
}

#[test]
fn records_of_other_hosts_boots_and_processes_are_told_apart() {
    let test = "records_of_other_hosts_boots_and_processes_are_told_apart";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let removed = pruned_of(&[
        ("same", |_| {}),
        ("another-boot", |record| {
            record["farseek"]["host"]["boot"] = "another".into();
            record["author"]["created"] = "2020-01-01T00:00:00Z".into();
        }),
        // Younger than this boot, so of a host that was copied from this one.
        ("another-copy", |record| {
            record["farseek"]["host"]["boot"] = "another".into();
        }),
        ("another-host", |record| {
            record["farseek"]["host"]["boot"] = "another".into();
            record["farseek"]["host"]["name"] = "far-away".into();
            record["author"]["host_name"] = "far-away".into();
            record["author"]["created"] = "2020-01-01T00:00:00Z".into();
        }),
        // The process is there, and was not when the record was written.
        ("another-process", |record| {
            let start = &mut record["farseek"]["holders"][0]["start"];
            *start = (start.as_u64().unwrap() - 1).into();
        }),
        ("another-namespace", |record| {
            record["farseek"]["host"]["pid_namespace"] = "pid:[1]".into();
            record["farseek"]["holders"][0]["pid"] = 1.into();
        }),
        ("no-process", |record| {
            record["farseek"]["holders"][0]["pid"] = i32::MAX.into();
        }),
    ]);
    assert_eq!(removed, ["another-boot", "another-process", "no-process"]);
}

#[test]
fn a_hundred_mounts_at_once_have_a_record_each() {
    if !need("a_hundred_mounts_at_once_have_a_record_each", &[Need::Fuse]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    let points: Vec<_> = (0..100)
        .map(|n| sandbox.make_dir(&format!("m{n}")))
        .collect();
    let both = |verb: &str, words: &dyn Fn(&Path) -> Vec<String>| {
        let commands = points.iter().map(|point| {
            let mut all = vec![verb.to_owned()];
            all.extend(words(point));
            let mut command = sandbox.command(&all);
            farseek_testkit::ChildGuard::spawn(&mut command).unwrap()
        });
        for mut command in commands.collect::<Vec<_>>() {
            let status = command.wait_within(4 * PROMPT).unwrap();
            assert!(status.success(), "{verb}: {status}");
        }
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    both("mount", &|point| {
        ["--threads", "1", &layer, &text(point)]
            .map(str::to_owned)
            .to_vec()
    });
    let records = list(&sandbox);
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| record["state"] == "alive"));
    let mut mounted: Vec<_> = records
        .iter()
        .map(|r| r["mountpoint"].to_string())
        .collect();
    mounted.sort();
    mounted.dedup();
    assert_eq!(mounted.len(), 100);
    assert_eq!(prune(&sandbox)["removed"], json!([]));
    both("unmount", &|point| vec![text(point)]);
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    let gone = || processes_naming(sandbox.path()).is_empty();
    wait_until("every process has ended", PATIENCE, gone);
}

#[test]
fn runtimes_are_removed_by_name_with_a_word_on_what_is_in_the_way() {
    let (sandbox, _) = with_environment();
    let record = |change: fn(&mut Value)| {
        let mut record = json!({
            "author": {"user_name": "somebody", "host_name": "far-away",
                "created": "2020-01-01T00:00:00Z"},
            "status": {"stack": [], "editable": false, "running": true, "owner": 1,
                "monitor": null, "command": []},
            "config": {"runtime_dir": null, "tmpfs_size": null, "upper_dir": "/u",
                "lower_dir": "/l", "work_dir": "/w", "sh_startup_file": "/s",
                "csh_startup_file": "/c", "mount_namespace": null, "durable": false},
        });
        change(&mut record);
        record
    };
    store(&sandbox, "theirs", record(|_| {}));
    store(
        &sandbox,
        "durable",
        record(|record| record["config"]["durable"] = true.into()),
    );
    let changes = sandbox.repository().join("durable_edits/durable");
    fs::create_dir_all(changes.join("upper")).unwrap();
    let refused = |words: &[&str], code: i32, say: &str| {
        let mut all = vec!["runtime", "remove"];
        all.extend(words);
        let output = sandbox.run(&all);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(say) && said.lines().count() == 1, "{said}");
    };
    refused(&["nobody"], 3, "no runtime 'nobody'");
    refused(&["theirs"], 9, "belongs to somebody: --ignore-user");
    refused(
        &["theirs", "--ignore-user"],
        9,
        "made on far-away: --ignore-host",
    );
    refused(&["durable", "--force"], 9, "--remove-durable");
    assert_eq!(list(&sandbox).len(), 2);
    sandbox.succeed(&["rt", "rm", "theirs", "--ignore-user", "--ignore-host"]);
    assert!(changes.exists());
    sandbox.succeed(&["rt", "rm", "durable", "--force", "--remove-durable"]);
    assert!(!changes.exists());
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    refused(&["../x"], 2, "cannot be the name");
    let outside = sandbox.run(&["runtime", "info"]);
    assert_eq!(outside.status.code(), Some(2));
}

#[test]
fn what_cannot_be_judged_goes_only_where_that_is_asked_for() {
    let (sandbox, _) = with_environment();
    let record = |host: &str| {
        json!({
            "author": {"user_name": "root", "host_name": host, "created": "2020-01-01T00:00:00Z"},
            "status": {"stack": [], "editable": false, "running": true, "owner": null,
                "monitor": null, "command": []},
            "config": {"runtime_dir": null, "tmpfs_size": null, "upper_dir": "/u",
                "lower_dir": "/l", "work_dir": "/w", "sh_startup_file": "/s",
                "csh_startup_file": "/c", "mount_namespace": null},
        })
    };
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    store(&sandbox, "a-here", record(&host));
    store(&sandbox, "b-there", record("far-away"));
    let pruned = |words: &[&str]| {
        let mut all = vec!["runtime", "prune", "--ignore-user"];
        all.extend(words);
        sandbox.succeed(&all)
    };
    assert_eq!(pruned(&[]), "");
    assert_eq!(pruned(&["--from-before-boot"]), "removed a-here\n");
    let all = pruned(&["--from-before-boot", "--ignore-host"]);
    assert_eq!(all, "removed b-there\n");
}

#[test]
fn what_was_mounted_from_afar_can_be_pulled_and_is_no_damage() {
    let test = "what_was_mounted_from_afar_can_be_pulled_and_is_no_damage";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (far, layer) = Remote::handmade(|made| {
        made.file("read", 0o644, b"the file that is read\n")
            .unwrap();
        made.file("unread", 0o644, b"the file that nobody reads\n")
            .unwrap();
    });
    let (near, url) = (sandbox(), far.server.url());
    let mount = near.mount(&layer, "mnt", &["--remote", &url]);
    let text = fs::read_to_string(mount.path().join("read")).unwrap();
    assert_eq!(text, "the file that is read\n");
    let living = near.succeed(&["check", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&living).unwrap()["sound"],
        true
    );
    mount.unmount();
    assert_eq!(list(&near), Vec::<Value>::new());
    let after: Value = serde_json::from_str(&near.succeed(&["check", "--json"])).unwrap();
    assert_eq!(
        (&after["sound"], &after["absent"]),
        (&json!(true), &json!(1))
    );
    near.succeed(&["pull", &layer, "--from", &url]);
    let unread = near.succeed(&["cat", &layer, "unread"]);
    assert_eq!(unread, "the file that nobody reads\n");
    let whole: Value = serde_json::from_str(&near.succeed(&["check", &layer, "--json"])).unwrap();
    assert_eq!(
        (&whole["sound"], &whole["payloads"]),
        (&json!(true), &json!(2))
    );
}

/// Whether this process can look at every process of the host but the first.
fn sees_every_process() -> bool {
    let is_refused = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap_or_default();
        let looked = fs::read_link(entry.path().join("ns/mnt"));
        let is_other = name.parse::<u32>().is_ok_and(|pid| pid != 1);
        is_other && looked.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    namespace == Path::new("pid:[4026531836]") && !processes.any(is_refused)
}

#[test]
fn a_runtime_of_spfs_goes_when_nobody_on_the_host_is_in_it() {
    let test = "a_runtime_of_spfs_goes_when_nobody_on_the_host_is_in_it";
    if !need(test, &[Need::Root]) {
        return;
    }
    let (sandbox, _) = with_environment();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let here = fs::read_link("/proc/self/ns/mnt").unwrap();
    let record = |host: &str, namespace: &str| {
        json!({
            "author": {"user_name": "root", "host_name": host, "created": "2020-01-01T00:00:00Z"},
            "status": {"stack": [], "editable": false, "running": true, "owner": i32::MAX,
                "monitor": null, "command": []},
            "config": {"runtime_dir": null, "tmpfs_size": null, "upper_dir": "/u",
                "lower_dir": "/l", "work_dir": "/w", "sh_startup_file": "/s",
                "csh_startup_file": "/c", "mount_namespace": namespace},
        })
    };
    store(&sandbox, "empty", record(&host, "mnt:[1]"));
    store(&sandbox, "inhabited", record(&host, here.to_str().unwrap()));
    store(&sandbox, "elsewhere", record("far-away", "mnt:[1]"));
    // Who does not see every process cannot tell: so it is in a container.
    let expected = match sees_every_process() {
        true => json!(["empty"]),
        false => json!([]),
    };
    assert_eq!(prune(&sandbox)["removed"], expected);
}

#[test]
fn a_namespace_that_has_the_number_of_an_ended_ones_is_not_joined() {
    let test = "a_namespace_that_has_the_number_of_an_ended_ones_is_not_joined";
    if !need(test, &[Need::Root, Need::Fuse]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    let here = fs::read_link("/proc/self/ns/mnt").unwrap();
    let mount = sandbox.mount(&layer, "mnt", &[]);
    let mut record = whole_record(&sandbox);
    mount.unmount();
    record["config"]["mount_namespace"] = here.to_str().unwrap().into();
    let joined = |record: &Value| {
        store(&sandbox, "other", record.clone());
        let output = sandbox.run(&["join", "other", "--", "echo", "joined"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.stdout == b"joined\n", said)
    };
    let (is_in, said) = joined(&record);
    assert!(!is_in && said.contains("nobody is in"), "{said}");
    // One that lives, at the same place, is.
    let me = json!({"pid": std::process::id(), "start": start_of_this_process()});
    record["farseek"]["holders"] = json!([me]);
    let (is_in, said) = joined(&record);
    assert!(is_in, "{said}");
    record["farseek"]["host"]["boot"] = "another".into();
    let (is_in, said) = joined(&record);
    assert!(!is_in && said.contains("nobody is in"), "{said}");
}

/// When this process was started, as records say it.
fn start_of_this_process() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(19).unwrap().parse().unwrap()
}

#[test]
fn records_are_in_no_namespace_of_tags() {
    if !need("records_are_in_no_namespace_of_tags", &[Need::Fuse]) {
        return;
    }
    let (sandbox, layer) = with_environment();
    let mountpoint = sandbox.make_dir("mnt");
    let point = mountpoint.to_str().unwrap();
    let run = |words: &[&str]| {
        let mut command = sandbox.command(words);
        command.env("FARSEEK_STORAGE_TAG_NAMESPACE", "some");
        let output = farseek_testkit::output_within(&mut command, PROMPT).unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["mount", &layer, point]);
    let tags = sandbox.repository().join("tags");
    // The lock of who has just removed one may still be there.
    let is_tag = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "tag"))
    };
    let records = || {
        let entries = fs::read_dir(tags.join("spfs/runtimes/meta"));
        entries.map_or(0, |entries| {
            entries.map(is_tag).filter(|is_tag| *is_tag).count()
        })
    };
    assert_eq!(records(), 1);
    assert!(!tags.join("some#ns/spfs").exists());
    run(&["unmount", point]);
    assert_eq!(records(), 0);
}
