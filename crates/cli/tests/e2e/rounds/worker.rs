//! One of those who do everything at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farseek_testkit::Random;
use farseek_testkit::mount::{PROMPT, is_mounted};

use super::mounted::{Mounted, clear_away};
use super::pool::{self, Identity, TAGS, identity_file};
use super::process::{Ended, Process};
use super::tags::{Seen, Side, Use};
use super::world::World;

/// Mounts of one worker at a time.
const MOUNTS: usize = 3;

/// One command in so many is killed, within [`KILLED_WITHIN`].
const KILLED: u64 = 12;

/// Milliseconds, in which most commands are done.
const KILLED_WITHIN: u64 = 120;

/// Of so many times that somebody could be killed or stopped, once nobody is: what is killed all the
/// time comes to nothing.
const SPARED: u64 = 3;

/// Milliseconds that somebody is stopped for at most.
const PAUSED: u64 = 300;

/// The seven parts of a round.
#[derive(Debug, Clone, Copy)]
enum Part {
    Commit,
    Pull,
    Mount,
    Read,
    Unmount,
    Clean,
    Kill,
}

const PARTS: [Part; 7] = [
    Part::Commit,
    Part::Pull,
    Part::Mount,
    Part::Read,
    Part::Unmount,
    Part::Clean,
    Part::Kill,
];

/// Why a command may fail that nobody has killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unless {
    /// It may not.
    Killed,
    /// What it was to read need not have been there.
    Absent,
    /// Another process was killed that it needs.
    Struck,
}

impl Unless {
    fn absent_unless(sure: bool) -> Self {
        if sure { Self::Killed } else { Self::Absent }
    }

    fn or_struck(self, struck: bool) -> Self {
        if struck { Self::Struck } else { self }
    }
}

/// The exit code where something that was named is not there.
const NOT_FOUND: i32 = 3;

/// The exit code where something is in use, and how often it may be.
const BUSY: i32 = 9;
const BUSY_TIMES: usize = 20;

/// Where an environment is read from.
struct Sources<'a> {
    /// Nothing but the local repository where there is none.
    remote: Option<String>,
    uses: Vec<Use<'a>>,
    seen: Vec<[Seen; 2]>,
}

pub(super) struct Worker<'a> {
    world: &'a World,
    number: u64,
    random: Random,
    mounts: Vec<Mounted<'a>>,
    /// For names that are new.
    made: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(world: &'a World, number: u64) -> Self {
        Self {
            world,
            number,
            random: Random::fork(world.seed, 10 + number),
            mounts: Vec::new(),
            made: 0,
        }
    }

    /// Does each of the parts, in any order.
    pub(super) fn round(&mut self) {
        let mut parts = PARTS;
        for last in (1..parts.len()).rev() {
            parts.swap(last, self.random.index(last + 1));
        }
        for part in parts {
            match part {
                Part::Commit => self.commit(),
                Part::Pull => self.pull(),
                Part::Mount => self.mount(),
                Part::Read => (0..4).for_each(|_| self.read()),
                Part::Unmount => self.unmount(),
                Part::Clean => self.clean(),
                Part::Kill => self.kill(),
            }
            self.read();
        }
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.world.note(format_args!("{}: {what}", self.number));
    }

    /// A path that is new.
    fn new_path(&mut self, kind: &str) -> PathBuf {
        self.made += 1;
        self.world
            .path(&format!("{kind}-{}-{}", self.number, self.made))
    }

    fn tag(&mut self) -> usize {
        self.random.index(TAGS)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.world.sandbox.command(words);
        command.env("FARSEEK", env!("CARGO_BIN_EXE_farseek"));
        command
    }

    /// Runs the program, kills it perhaps, and returns how it ended.
    fn go(&mut self, words: &[&str]) -> Ended {
        let deadline = self.random.once_in(KILLED).then(|| {
            let milliseconds = self.random.below(KILLED_WITHIN);
            Duration::from_millis(milliseconds)
        });
        let process = self.world.processes.start(&mut self.command(words));
        let words = words.join(" ");
        self.note(format_args!("{words}"));
        let ended = process.wait(deadline);
        self.note(format_args!("ended {}: {words}", ended.status));
        ended
    }

    /// Whether a command succeeded, which it must unless it was killed, or `unless` excuses it.
    fn judge(&self, what: &'static str, ended: &Ended, unless: Unless) -> bool {
        let (status, said) = (ended.status, &ended.said);
        let is_excused = match unless {
            Unless::Killed => false,
            Unless::Absent => status.code() == Some(NOT_FOUND),
            Unless::Struck => true,
        };
        let is_well = status.success() || is_excused || ended.was_killed();
        assert!(is_well, "{what}: {status}: {said}");
        if !status.success() {
            self.note(format_args!("{what} said: {}", said.trim()));
        }
        self.world.count(what, status.success());
        status.success()
    }

    fn commit(&mut self) {
        match self.random.below(10) {
            0 | 1 => self.edit(),
            2..=4 => self.commit_to(Side::Remote),
            _ => self.commit_to(Side::Local),
        }
    }

    fn commit_to(&mut self, side: Side) {
        let (tag, number) = (self.tag(), self.world.next_number());
        let tree = self.new_path("tree");
        pool::write(&tree, &self.world.pool.files(tag, Identity::of(number)));
        self.world.tags.announce(tag, number);
        let seen = self.world.tags.see(side, tag);
        let (tree_name, tag_name) = (tree.display().to_string(), name(tag));
        let remote = self.world.remote.display().to_string();
        let mut words = vec!["commit", &tree_name, "--tag", &tag_name];
        if side == Side::Remote {
            words.extend(["-r", &remote]);
        }
        let ended = self.go(&words);
        if self.judge("commit", &ended, Unless::Killed) {
            self.world.tags.written(seen);
        }
        fs::remove_dir_all(tree).unwrap();
    }

    /// Commits what was changed in a runtime.
    fn edit(&mut self) {
        let (tag, number) = (self.tag(), self.world.next_number());
        self.world.tags.announce(tag, number);
        let seen = self.world.tags.see(Side::Local, tag);
        let cut = self.random.once_in(2);
        let (file, tag_name, cut_name) = (identity_file(tag), name(tag), pool::CUT);
        let removal = match cut {
            true => format!("rm -rf {cut_name}; cut=cut;"),
            false => String::new(),
        };
        let script = format!(
            "set -e; read of base cut < {file}; {removal} echo \"{number} $base $cut\" > {file}
            exec \"$FARSEEK\" commit platform -t {tag_name}"
        );
        let ended = self.in_runtime(&[&tag_name, "--edit"], &script);
        let sure = self.world.tags.is_sure(seen);
        if self.judge_runtime("edit", &ended, sure) {
            self.world.tags.written(seen);
        }
    }

    /// What a script does in a runtime, at whose root it begins.
    fn in_runtime(&mut self, words: &[&str], script: &str) -> (PathBuf, Ended) {
        let at = self.new_path("at");
        fs::create_dir(&at).unwrap();
        let at_name = at.display().to_string();
        let script = format!("cd {at_name}; {script}");
        let mut all = vec!["run"];
        all.extend(words);
        all.extend(["--at", &at_name, "--", "sh", "-c", &script]);
        let ended = self.go(&all);
        (at, ended)
    }

    /// As [`judge`](Self::judge): the host may have been killed as well.
    fn judge_runtime(&self, what: &'static str, run: &(PathBuf, Ended), sure: bool) -> bool {
        let (at, ended) = run;
        let unless = Unless::absent_unless(sure).or_struck(self.world.processes.is_struck(at));
        let succeeded = self.judge(what, ended, unless);
        // Nothing was mounted but in the namespace of its own.
        fs::remove_dir(at).unwrap();
        succeeded
    }

    fn pull(&mut self) {
        match self.random.below(10) {
            0..=3 => self.pull_tag(),
            4..=6 => self.push_tag(),
            7 => self.warm(),
            _ => self.run(),
        }
    }

    /// How the remote repository is reached.
    fn remote(&mut self) -> String {
        match self.random.below(3) {
            0 => self.world.remote.display().to_string(),
            index => self.world.urls[index as usize - 1].clone(),
        }
    }

    fn pull_tag(&mut self) {
        let tag = self.tag();
        let tags = &self.world.tags;
        let seen = [Side::Local, Side::Remote].map(|side| tags.see(side, tag));
        let Some(_use) = tags.read_from_remote(tag) else {
            return;
        };
        let (tag_name, from) = (name(tag), self.remote());
        let mut words = vec!["pull", &tag_name, "--from", &from];
        words.extend(self.random.once_in(2).then_some("--sync"));
        let ended = self.go(&words);
        let sure = tags.is_sure(seen[1]) && tags.is_undisturbed(seen[0]);
        if self.judge("pull", &ended, Unless::absent_unless(sure)) {
            tags.written(seen[0]);
        }
    }

    fn push_tag(&mut self) {
        let tag = self.tag();
        let tags = &self.world.tags;
        let seen = [Side::Local, Side::Remote].map(|side| tags.see(side, tag));
        let through_server = self.random.once_in(2);
        let to = match through_server {
            true => self.world.urls[1].clone(),
            false => self.world.remote.display().to_string(),
        };
        let _pushing = through_server.then(|| self.world.pushing.read().unwrap());
        let tag_name = name(tag);
        let mut words = vec!["push", &tag_name, "--to", &to];
        words.extend(self.random.once_in(2).then_some("--sync"));
        let ended = self.go(&words);
        let sure = tags.is_sure(seen[0]) && tags.is_undisturbed(seen[1]);
        if self.judge("push", &ended, Unless::absent_unless(sure)) {
            tags.written(seen[1]);
        }
    }

    /// From where to read `tags`: from the local repository alone, or from the remote one, too.
    fn sources(&mut self, tags: &[usize]) -> Sources<'a> {
        let world = self.world;
        let see = |&tag: &usize| [Side::Local, Side::Remote].map(|side| world.tags.see(side, tag));
        let seen = tags.iter().map(see).collect();
        let uses = tags.iter().map(|&tag| world.tags.read_from_remote(tag));
        match uses.collect::<Option<Vec<_>>>() {
            Some(uses) if !self.random.once_in(3) => Sources {
                remote: Some(self.remote()),
                uses,
                seen,
            },
            _ => Sources {
                remote: None,
                uses: Vec::new(),
                seen,
            },
        }
    }

    /// Whether what was to be read from there must have been there.
    fn is_sure(&self, sources: &Sources<'_>) -> bool {
        let tags = &self.world.tags;
        sources
            .seen
            .iter()
            .all(|[local, remote]| match sources.remote {
                None => tags.is_sure(*local),
                // One that is found first may be removed while it is looked at.
                Some(_) => {
                    (tags.is_sure(*local) || tags.is_sure(*remote)) && tags.is_undisturbed(*local)
                }
            })
    }

    /// One environment or two, one upon the other.
    fn reference(&mut self) -> Vec<usize> {
        let (first, second) = (self.tag(), self.tag());
        match first != second && self.random.once_in(4) {
            true => vec![first, second],
            false => vec![first],
        }
    }

    fn warm(&mut self) {
        let tags = self.reference();
        let sources = self.sources(&tags);
        let reference = names(&tags);
        let mut words = vec!["warm", &reference];
        if let Some(remote) = &sources.remote {
            words.extend(["--remote", remote]);
        }
        let ended = self.go(&words);
        let sure = self.is_sure(&sources);
        self.judge("warm", &ended, Unless::absent_unless(sure));
    }

    /// Compares all that a runtime shows with what was committed.
    fn run(&mut self) {
        let tags = self.reference();
        let sources = self.sources(&tags);
        let reference = names(&tags);
        let copy = self.new_path("copy");
        let mut words = vec![reference.as_str()];
        if let Some(remote) = &sources.remote {
            words.extend(["--remote", remote]);
        }
        let script = format!("cp -r . {}", copy.display());
        let run = self.in_runtime(&words, &script);
        let sure = self.is_sure(&sources);
        if self.judge_runtime("run", &run, sure) {
            let same = Mounted::identify(self.world, copy.clone(), None, &tags, Vec::new());
            same.expect("a copy is no mount").read_all();
        }
        let _ = fs::remove_dir_all(copy);
    }

    fn mount(&mut self) {
        if self.mounts.len() >= MOUNTS {
            return self.unmount();
        }
        let tags = self.reference();
        let sources = self.sources(&tags);
        let at = self.new_path("mnt");
        fs::create_dir(&at).unwrap();
        let log = at.with_extension("log").display().to_string();
        let (reference, at_name) = (names(&tags), at.display().to_string());
        let mut words = vec!["mount", "-v", "--log-file", &log, &reference, &at_name];
        if let Some(remote) = &sources.remote {
            words.extend(["--remote", remote]);
        }
        let options = [
            &["--no-disk-cache"][..],
            &["--no-passthrough"],
            &["--block-size", "16K"],
            &["--promote", "never"],
            &["--verify", "strict"],
        ];
        for option in options {
            words.extend(
                self.random
                    .once_in(5)
                    .then_some(option)
                    .into_iter()
                    .flatten(),
            );
        }
        let in_foreground = self.random.once_in(2);
        let process = match in_foreground {
            true => self.mount_in_foreground(words, &at),
            false => self.mount_in_background(&words),
        };
        let (process, ended) = match process {
            Ok(process) => (process, None),
            Err(ended) => (None, Some(ended)),
        };
        if let Some(ended) = ended {
            let unless = Unless::absent_unless(self.is_sure(&sources));
            let unless = unless.or_struck(self.world.processes.is_struck(&at));
            self.judge("mount", &ended, unless);
            return clear_away(self.world, &at);
        }
        self.world.count("mount", true);
        let mounted = Mounted::identify(self.world, at, process, &tags, sources.uses);
        self.mounts.extend(mounted);
    }

    /// The mount's own process, once it is mounted.
    fn mount_in_foreground(
        &mut self,
        mut words: Vec<&str>,
        at: &Path,
    ) -> Result<Option<Arc<Process>>, Ended> {
        words.push("--foreground");
        let process = self.world.processes.start(&mut self.command(&words));
        self.note(words.join(" "));
        let start = Instant::now();
        while !is_mounted(at) {
            if process.try_wait().is_some() {
                return Err(process.wait(None));
            }
            let said = || process.said();
            assert!(start.elapsed() < PROMPT, "there is no mount: {}", said());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Some(process))
    }

    fn mount_in_background(&mut self, words: &[&str]) -> Result<Option<Arc<Process>>, Ended> {
        let ended = self.go(words);
        match ended.status.success() {
            true => Ok(None),
            false => Err(ended),
        }
    }

    fn read(&mut self) {
        if self.mounts.is_empty() {
            return;
        }
        let index = self.random.index(self.mounts.len());
        if !self.mounts[index].read(&mut self.random) {
            let dead = self.mounts.swap_remove(index);
            self.note(format_args!("dead: {}", dead.at().display()));
            dead.take_away();
        }
    }

    fn unmount(&mut self) {
        if self.mounts.is_empty() {
            return;
        }
        let index = self.random.index(self.mounts.len());
        let mut mounted = self.mounts.swap_remove(index);
        mounted.close();
        let at = mounted.at().display().to_string();
        let mut ended = self.go(&["unmount", &at]);
        // A child of another worker has what we had open, from its fork to its exec.
        for _ in 0..BUSY_TIMES {
            if ended.status.code() != Some(BUSY) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            ended = self.go(&["unmount", &at]);
        }
        let unless = Unless::Killed.or_struck(mounted.is_struck());
        let unmounted = self.judge("unmount", &ended, unless);
        if !unmounted && !mounted.is_struck() && is_mounted(mounted.at()) {
            // The command was killed before it had done anything.
            self.mounts.push(mounted);
            return;
        }
        mounted.take_away();
    }

    pub(super) fn unmount_all(&mut self) {
        while !self.mounts.is_empty() {
            self.mounts
                .retain(|mounted| mounted.is_struck() || mounted.read_all());
            self.unmount();
        }
    }

    fn clean(&mut self) {
        match self.random.below(12) {
            0 | 1 => self.prune(),
            2 => self.clean_remote(),
            3..=5 => {
                self.untag(Side::Local);
                self.clean_local();
            }
            6 => {
                self.untag(Side::Remote);
                self.clean_remote();
            }
            _ => self.clean_local(),
        }
    }

    fn prune(&mut self) {
        let ended = self.go(&["runtime", "prune"]);
        self.judge("prune", &ended, Unless::Killed);
    }

    fn clean_local(&mut self) {
        let mut words = vec!["clean", "--yes", "--min-age", "0s"];
        let rules = [
            &["--prune-repeated"][..],
            &["--prune-if-more-than", "0"],
            &["--prune-if-older-than", "0s", "--keep-if-less-than", "1"],
        ];
        if self.random.once_in(2) {
            words.extend(*self.random.pick(&rules));
        }
        let ended = self.go(&words);
        self.judge("clean", &ended, Unless::Killed);
    }

    fn clean_remote(&mut self) {
        let _alone = self.world.pushing.write().unwrap();
        let remote = self.world.remote.display().to_string();
        let ended = self.go(&["clean", "--yes", "--min-age", "0s", "-r", &remote]);
        self.judge("clean of the remote", &ended, Unless::Killed);
    }

    fn untag(&mut self, side: Side) {
        let tag = self.tag();
        if !self.world.tags.begin_removal(side, tag) {
            return;
        }
        let (tag_name, remote) = (name(tag), self.world.remote.display().to_string());
        let mut words = vec!["untag", &tag_name];
        words.push(*self.random.pick(&["--all", "--latest"]));
        if side == Side::Remote {
            words.extend(["-r", &remote]);
        }
        let ended = self.go(&words);
        self.judge("untag", &ended, Unless::Absent);
        self.world.tags.end_removal(side, tag);
    }

    fn kill(&mut self) {
        if self.random.once_in(SPARED) {
            return;
        }
        let sandbox = self.world.sandbox.path();
        let Some(victim) = self.world.processes.pick(&mut self.random, sandbox) else {
            return;
        };
        match self.random.once_in(2) {
            true => {
                self.note(format_args!("kills {victim:?}"));
                self.world.processes.strike(&victim);
            }
            false => {
                let milliseconds = self.random.below(PAUSED);
                self.note(format_args!("stops for {milliseconds} ms {victim:?}"));
                victim.pause(Duration::from_millis(milliseconds));
            }
        }
    }
}

fn name(tag: usize) -> String {
    format!("rounds/{tag}")
}

fn names(tags: &[usize]) -> String {
    let names: Vec<_> = tags.iter().map(|&tag| name(tag)).collect();
    names.join("+")
}
