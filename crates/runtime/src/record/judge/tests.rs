use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::*;
use crate::record::ProcessId;
use crate::record::json::Kind;

const ME: ProcessId = ProcessId { pid: 70, start: 99 };

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn here() -> Host {
    Host {
        name: "here".into(),
        machine: Some("m1".into()),
        boot: "b1".into(),
        booted: Some(time("2026-01-02T00:00:00Z")),
        pid_namespace: "pid:[1]".into(),
        time_namespace: Some("time:[1]".into()),
    }
}

/// Of a mount on `host`, made an hour after this boot.
fn of(host: Host) -> RuntimeRecord {
    let mut record = RuntimeRecord::new(Some("r"), Kind::Mount, "user", host, ME);
    record.author.created = "2026-01-02T01:00:00Z".into();
    record
}

fn with_process(record: &RuntimeRecord, process: Process) -> Verdict {
    judge(record, &here(), |_| process, |_| Presence::Nobody)
}

#[test]
fn an_owner_of_this_boot_is_known_by_number_and_start() {
    let record = of(here());
    let table = [
        (Process::Started(99), Verdict::Alive),
        (Process::Started(98), Verdict::Ended),
        (Process::Gone, Verdict::Ended),
        (Process::Hidden, Verdict::Unknown),
    ];
    for (process, verdict) in table {
        assert_eq!(with_process(&record, process), verdict, "{process:?}");
    }
}

#[test]
fn the_boot_tells_the_host_whatever_it_is_called_by_now() {
    let renamed = Host {
        name: "renamed".into(),
        machine: None,
        ..here()
    };
    assert_eq!(
        with_process(&of(renamed.clone()), Process::Started(99)),
        Verdict::Alive
    );
    assert_eq!(with_process(&of(renamed), Process::Gone), Verdict::Ended);
}

#[test]
fn of_several_holders_one_is_enough() {
    let mut record = of(here());
    let other = ProcessId { pid: 71, start: 7 };
    record.farseek.as_mut().unwrap().holders.push(other);
    let judged = |first: Process, second: Process| {
        let process = |pid| if pid == ME.pid { first } else { second };
        judge(&record, &here(), process, |_| Presence::Nobody)
    };
    assert_eq!(judged(Process::Gone, Process::Started(7)), Verdict::Alive);
    assert_eq!(judged(Process::Hidden, Process::Started(7)), Verdict::Alive);
    assert_eq!(judged(Process::Started(99), Process::Gone), Verdict::Alive);
    assert_eq!(judged(Process::Gone, Process::Hidden), Verdict::Unknown);
    assert_eq!(judged(Process::Gone, Process::Started(8)), Verdict::Ended);
    record.farseek.as_mut().unwrap().holders.clear();
    assert_eq!(with_process(&record, Process::Gone), Verdict::Unknown);
}

#[test]
fn numbers_of_another_pid_namespace_say_nothing() {
    let container = Host {
        pid_namespace: "pid:[2]".into(),
        ..here()
    };
    for process in [Process::Gone, Process::Started(99), Process::Started(1)] {
        assert_eq!(
            with_process(&of(container.clone()), process),
            Verdict::Unknown
        );
    }
}

#[test]
fn a_start_under_another_clock_is_no_other_process() {
    let shifted = Host {
        time_namespace: Some("time:[2]".into()),
        ..here()
    };
    let record = of(shifted);
    assert_eq!(with_process(&record, Process::Started(5)), Verdict::Unknown);
    assert_eq!(with_process(&record, Process::Gone), Verdict::Ended);
}

#[test]
fn what_was_before_this_boot_of_this_host_has_ended() {
    let before = Host {
        boot: "b0".into(),
        ..here()
    };
    let judged = |host: &Host, created: &str| {
        let mut record = of(host.clone());
        record.author.created = created.into();
        // That a process is there says nothing about another boot.
        with_process(&record, Process::Started(99))
    };
    assert_eq!(judged(&before, "2026-01-01T23:59:59Z"), Verdict::Ended);
    // Younger than this boot: a copy of this host.
    assert_eq!(judged(&before, "2026-01-02T00:00:00Z"), Verdict::Unknown);
    assert_eq!(judged(&before, "yesterday"), Verdict::Unknown);

    let old = "2026-01-01T00:00:00+01:00";
    let other_name = Host {
        name: "there".into(),
        ..before.clone()
    };
    let other_machine = Host {
        machine: Some("m2".into()),
        ..before.clone()
    };
    let no_machine = Host {
        machine: None,
        ..before.clone()
    };
    for elsewhere in [other_name, other_machine, no_machine] {
        assert_eq!(judged(&elsewhere, old), Verdict::Unknown, "{elsewhere:?}");
    }
}

#[test]
fn a_name_that_says_nothing_is_no_host() {
    let judged = |name: &str| {
        let nameless = |boot: &str| Host {
            name: name.into(),
            machine: None,
            boot: boot.into(),
            ..here()
        };
        let mut record = of(nameless("b0"));
        record.author.created = "2026-01-01T00:00:00Z".into();
        let here = nameless("b1");
        judge(&record, &here, |_| Process::Gone, |_| Presence::Nobody)
    };
    assert_eq!(judged("render-12"), Verdict::Ended);
    for name in NO_NAMES {
        assert_eq!(judged(name), Verdict::Unknown, "{name}");
    }
}

#[test]
fn without_the_time_of_the_boot_nothing_is_older() {
    let mut record = of(Host {
        boot: "b0".into(),
        ..here()
    });
    record.author.created = "2000-01-01T00:00:00Z".into();
    let here = Host {
        booted: None,
        ..here()
    };
    let verdict = judge(&record, &here, |_| Process::Gone, |_| Presence::Nobody);
    assert_eq!(verdict, Verdict::Unknown);
}

fn stock() -> RuntimeRecord {
    let mut record = of(here());
    record.farseek = None;
    record.status.owner = Some(70);
    record.status.monitor = Some(71);
    record.config.mount_namespace = Some("mnt:[5]".into());
    record
}

fn judge_it(record: &RuntimeRecord, process: Process, users: Presence) -> Verdict {
    let users = |place: Place<'_>| {
        assert_eq!(place, Place::Namespace("mnt:[5]"));
        users
    };
    judge(record, &here(), |_| process, users)
}

#[test]
fn a_stock_runtime_lives_while_somebody_is_in_its_namespace() {
    let table = [
        (Process::Gone, Presence::Somebody, Verdict::Alive),
        (Process::Started(1), Presence::Somebody, Verdict::Alive),
        (Process::Gone, Presence::Nobody, Verdict::Ended),
        (Process::Started(1), Presence::Nobody, Verdict::Unknown),
        (Process::Hidden, Presence::Nobody, Verdict::Unknown),
        (Process::Gone, Presence::Unknown, Verdict::Unknown),
        (Process::Started(1), Presence::Unknown, Verdict::Unknown),
    ];
    for (process, users, verdict) in table {
        let judged = judge_it(&stock(), process, users);
        assert_eq!(judged, verdict, "{process:?} {users:?}");
    }
}

#[test]
fn a_stock_runtime_is_judged_on_its_host_and_in_its_namespace_alone() {
    let mut elsewhere = stock();
    elsewhere.author.host_name = "there".into();
    let nobody = |record: &RuntimeRecord| judge_it(record, Process::Gone, Presence::Nobody);
    assert_eq!(nobody(&elsewhere), Verdict::Unknown);
    let mut not_begun = stock();
    not_begun.config.mount_namespace = None;
    assert_eq!(nobody(&not_begun), Verdict::Unknown);
    let mut beyond_numbers = stock();
    beyond_numbers.status.owner = Some(u32::MAX);
    assert_eq!(nobody(&beyond_numbers), Verdict::Ended);
}

#[test]
fn our_record_that_spfs_has_saved_is_one_of_spfs() {
    let mut value = serde_json::to_value(of(here())).unwrap();
    value.as_object_mut().unwrap().remove("farseek");
    let record: RuntimeRecord = serde_json::from_value(value).unwrap();
    let verdict = judge(&record, &here(), |_| Process::Gone, |_| Presence::Nobody);
    assert_eq!(verdict, Verdict::Unknown);
}

#[test]
fn what_a_later_version_adds_is_read_and_kept() {
    let mut value = serde_json::to_value(of(here())).unwrap();
    value["farseek"]["kind"] = json!("something new");
    value["farseek"]["more"] = json!({ "a": [1, 2] });
    let record: RuntimeRecord = serde_json::from_value(value).unwrap();
    assert_eq!(record.farseek.as_ref().unwrap().kind, Kind::Other);
    let saved = serde_json::to_value(&record).unwrap();
    assert_eq!(saved["farseek"]["more"], json!({ "a": [1, 2] }));
    assert_eq!(with_process(&record, Process::Started(99)), Verdict::Alive);
}

#[test]
fn a_runtime_lives_while_somebody_is_in_it_whoever_has_ended() {
    let mut record = of(here());
    record.config.runtime_dir = Some("/run/r".into());
    let judged = |process, users| {
        let users = |place: Place<'_>| {
            assert_eq!(place, Place::Directory(Path::new("/run/r")));
            users
        };
        judge(&record, &here(), |_| process, users)
    };
    let table = [
        (Process::Gone, Presence::Somebody, Verdict::Alive),
        (Process::Started(1), Presence::Somebody, Verdict::Alive),
        (Process::Gone, Presence::Unknown, Verdict::Unknown),
        (Process::Gone, Presence::Nobody, Verdict::Ended),
        (Process::Started(99), Presence::Nobody, Verdict::Alive),
    ];
    for (process, users, verdict) in table {
        assert_eq!(judged(process, users), verdict, "{process:?} {users:?}");
    }
}
