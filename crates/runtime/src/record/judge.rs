//! Whether the owner of a record can still be there: from values alone, and in doubt it may be.
//!
//! A record of ours names its host, the time since its boot, and processes by number and start.
//! - The same boot: it is this very host, whatever it is called. Numbers can be looked up where
//!   they are of this PID namespace; of another one nothing is known, for a number means another
//!   process there, and those of a namespace beside ours cannot be seen at all. Start times are
//!   shifted by a time namespace, so one that differs says nothing under another one.
//!   What its processes have started may go on without them: a runtime lives as long as somebody is
//!   in it, its host or nobody else being there or not. What is read from renders needs no host.
//! - Another boot: nothing of it is left, if it was a boot of *this* host. That is believed where
//!   the host's name and its machine id agree, and where the record is older than this boot: a
//!   younger one is of a host that was copied from this one, or shares its name.
//! - Anything else may live on another host that shares the repository.
//!
//! A record of SPFS names the host, bare process numbers, and the mount namespace. It has ended
//! where the host has our name, none of its processes is there, and nobody on the whole host is in
//! its mount namespace: that only who sees every process can tell. One that has not got as far as
//! to a mount namespace is left to SPFS.

use std::path::Path;

use super::host::{Host, Process, ProcessId};
use super::json::{Kind, Origin, RuntimeRecord};
use super::presence::{Place, Presence, Seen};

/// Names that say nothing of which host it is.
const NO_NAMES: [&str; 4] = ["", "localhost", "localhost.localdomain", "(none)"];

/// How often we look at every process.
const LOOKS: usize = 2;

/// What is known of the owner of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Alive,
    /// It has ended for certain.
    Ended,
    /// It cannot be told from here.
    Unknown,
}

/// Judges `record` on the host `here`: `process` looks up a process number, `users` whether
/// somebody is in a place.
pub fn judge(
    record: &RuntimeRecord,
    here: &Host,
    process: impl Fn(i32) -> Process,
    users: impl Fn(Place<'_>) -> Presence,
) -> Verdict {
    match &record.farseek {
        Some(origin) if origin.host.boot == here.boot => {
            match judge_holders(origin, here, process) {
                Verdict::Ended => judge_users(record, users),
                verdict => verdict,
            }
        }
        Some(origin) => judge_boot(record, &origin.host, here),
        None => judge_stock(record, here, process, users),
    }
}

impl Host {
    /// Judges `record` by what is on this host now.
    pub fn judge(&self, record: &RuntimeRecord) -> Verdict {
        self.judge_all([record])[0]
    }

    /// Judges `records`, in their order, at the cost of one. Who is in a runtime is looked for when
    /// its holders have ended, for the last of them may be who enters it; and twice, for who has
    /// ended when we come to it may have started one that we have passed.
    pub fn judge_all<'a>(
        &self,
        records: impl IntoIterator<Item = &'a RuntimeRecord>,
    ) -> Vec<Verdict> {
        let judged = |record: &RuntimeRecord, seen: Option<&Seen>| {
            let users = |place: Place<'_>| match (place, seen) {
                (Place::Namespace(_), _) => self.users_of(place),
                (_, Some(seen)) => seen.users_of(place),
                (_, None) => Presence::Nobody,
            };
            judge(record, self, |pid| self.process(pid), users)
        };
        let records = records.into_iter();
        let mut all: Vec<_> = records
            .map(|record| (record, judged(record, None)))
            .collect();
        let is_open = |(record, verdict): &(&RuntimeRecord, Verdict)| {
            *verdict == Verdict::Ended && directory(record).is_some()
        };
        for _ in 0..LOOKS {
            if !all.iter().any(is_open) {
                break;
            }
            let seen = Seen::now();
            for found in all.iter_mut().filter(|found| is_open(found)) {
                found.1 = judged(found.0, Some(&seen));
            }
        }
        all.into_iter().map(|(_, verdict)| verdict).collect()
    }
}

impl Host {
    /// Whether `record` is of a runtime that has ended, and whose host alone is left, to tidy up.
    pub fn is_tidied_up(&self, record: &RuntimeRecord) -> bool {
        let Some(origin) = record.farseek.as_ref() else {
            return false;
        };
        let is_here = origin.kind == Kind::Run && origin.host.boot == self.boot;
        let is_held = judge_holders(origin, self, |pid| self.process(pid)) == Verdict::Alive;
        if !is_here || !is_held {
            return false;
        }
        let mut guests = origin
            .holders
            .iter()
            .filter(|holder| u32::try_from(holder.pid).ok() != record.status.monitor);
        let is_there =
            |holder: &ProcessId| self.process(holder.pid) == Process::Started(holder.start);
        let has_nobody = || {
            let directory = directory(record);
            directory.is_some_and(|path| self.users_of(Place::Directory(path)) == Presence::Nobody)
        };
        record.is_laid_down() || (!guests.any(is_there) && has_nobody())
    }
}

/// A record of this boot.
fn judge_holders(origin: &Origin, here: &Host, process: impl Fn(i32) -> Process) -> Verdict {
    if origin.host.pid_namespace != here.pid_namespace || origin.holders.is_empty() {
        return Verdict::Unknown;
    }
    let same_clock = origin.host.time_namespace == here.time_namespace;
    let holders = origin
        .holders
        .iter()
        .map(|holder| match process(holder.pid) {
            Process::Gone => Verdict::Ended,
            Process::Started(start) if start == holder.start => Verdict::Alive,
            Process::Started(_) if same_clock => Verdict::Ended,
            Process::Started(_) | Process::Hidden => Verdict::Unknown,
        });
    holders.reduce(either).expect("there is a holder")
}

/// A record whose holders have ended.
fn judge_users(record: &RuntimeRecord, users: impl Fn(Place<'_>) -> Presence) -> Verdict {
    let Some(directory) = directory(record) else {
        // A mount ends with its process.
        return Verdict::Ended;
    };
    let namespace = record.config.mount_namespace.as_deref();
    let namespace = namespace.map(Path::to_string_lossy);
    let is_confined = |namespace| users(Place::Confined(namespace)) == Presence::Somebody;
    match users(Place::Directory(directory)) {
        Presence::Nobody if namespace.as_deref().is_some_and(is_confined) => Verdict::Alive,
        Presence::Nobody => Verdict::Ended,
        Presence::Somebody => Verdict::Alive,
        Presence::Unknown => Verdict::Unknown,
    }
}

/// The directory of a runtime of ours, which has its name: another is not believed.
fn directory(record: &RuntimeRecord) -> Option<&Path> {
    let directory = record.config.runtime_dir.as_deref();
    let directory = directory.filter(|_| record.farseek.is_some());
    directory.filter(|path| path.file_name() == Some(record.name.as_ref()))
}

/// Of two that keep a record alive.
fn either(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Alive, _) | (_, Verdict::Alive) => Verdict::Alive,
        (Verdict::Ended, Verdict::Ended) => Verdict::Ended,
        _ => Verdict::Unknown,
    }
}

/// A record of another boot.
fn judge_boot(record: &RuntimeRecord, there: &Host, here: &Host) -> Verdict {
    let is_named = there.machine.is_some() || !NO_NAMES.contains(&there.name.as_str());
    let is_here = is_named && there.name == here.name && there.machine == here.machine;
    let is_older = match (record.created(), here.booted) {
        (Some(created), Some(booted)) => created < booted,
        _ => false,
    };
    match is_here && is_older {
        true => Verdict::Ended,
        false => Verdict::Unknown,
    }
}

/// A record that SPFS has made, or has saved last.
fn judge_stock(
    record: &RuntimeRecord,
    here: &Host,
    process: impl Fn(i32) -> Process,
    users: impl Fn(Place<'_>) -> Presence,
) -> Verdict {
    let namespace = record.config.mount_namespace.as_deref();
    let (true, Some(namespace)) = (record.author.host_name == here.name, namespace) else {
        return Verdict::Unknown;
    };
    match users(Place::Namespace(&namespace.to_string_lossy())) {
        Presence::Somebody => return Verdict::Alive,
        Presence::Unknown => return Verdict::Unknown,
        Presence::Nobody => {}
    }
    let status = &record.status;
    let mut numbers = [status.owner, status.monitor].into_iter().flatten();
    let is_gone = |number: u32| match i32::try_from(number) {
        Ok(pid) => process(pid) == Process::Gone,
        Err(_) => true,
    };
    match numbers.all(is_gone) {
        true => Verdict::Ended,
        // It may be its monitor, or a process that has its number by now.
        false => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests;
