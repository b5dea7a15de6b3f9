//! Records whose owners have ended go, with what they have left on this host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::host::{Host, Process};
use super::json::RuntimeRecord;
use super::judge::Verdict;
use super::leftovers::{self, Leftovers};
use super::runtimes::{Listed, Runtimes};
use crate::blocking::blocking;
use crate::error::{Result, RuntimeError};

/// Which records go.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Only those of this user.
    pub user: Option<String>,
    /// Also those that cannot be judged, where they were made before this boot on a host of this
    /// one's name, and no process has the number of their monitor.
    pub from_before_boot: bool,
    /// With that, whatever the name of the host.
    pub ignore_host: bool,
    /// With that, whoever has the number.
    pub ignore_monitor: bool,
    /// Leave those alone that have left something on this host, which then stays, too. For
    /// whoever has other things to do.
    pub records_only: bool,
    /// Only say which would go.
    pub pretend: bool,
    /// Where runtimes have their directories, one each of its name.
    pub root: Option<PathBuf>,
}

/// What has become of the records.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The names of those that went.
    pub removed: Vec<String>,
    /// The names of those that stay, and what is known of their owners.
    pub kept: Vec<(String, Verdict)>,
    /// The names of runtimes without a record whose directories went.
    pub directories: Vec<String>,
    /// The names of those that should have gone, or cannot be read, and why they are there.
    pub failed: Vec<(String, RuntimeError)>,
}

impl Runtimes {
    /// Removes the records whose owners have ended for certain, as seen from `here`, and what they
    /// have left. Durable ones stay, as nobody's. What runtimes have left that have no record goes
    /// as well, unless it is about records only.
    ///
    /// # Errors
    /// The records cannot be listed.
    pub async fn prune(&self, here: &Host, options: &PruneOptions) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let mut known = BTreeSet::new();
        for (found, record) in self.judged(here, options, self.list().await?).await {
            let name = found.name.clone();
            known.insert(name.clone());
            match self.prune_one(here, options, &found, record).await {
                Ok(None) => pruned.removed.push(name),
                Ok(Some(verdict)) => pruned.kept.push((name, verdict)),
                Err(error) => pruned.failed.push((name, error)),
            }
        }
        if let (Some(root), false, false) =
            (options.root.clone(), options.records_only, options.pretend)
        {
            let taking = move || leftovers::take_unknown(&root, &known);
            let (taken, failed) = blocking(taking).await;
            pruned.directories = taken;
            pruned.failed.extend(failed);
        }
        Ok(pruned)
    }

    /// Takes away what the runtime `name` has left, with its record, where its processes have ended
    /// for certain, as [`prune`](Self::prune) does.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) async fn prune_named(
        &self,
        here: &Host,
        options: &PruneOptions,
        name: &str,
    ) -> Result<()> {
        let found = match self.find(name).await {
            Err(RuntimeError::UnknownRuntime { .. }) => {
                return match &options.root {
                    Some(root) => self.take_unrecorded(root, name).await,
                    None => Ok(()),
                };
            }
            found => found?,
        };
        for (found, record) in self.judged(here, options, vec![found]).await {
            self.prune_one(here, options, &found, record).await?;
        }
        Ok(())
    }

    /// Takes away the directory of the runtime `name` in `root`, whose record says that it is
    /// nobody's, unless somebody claims it or is in it.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) async fn take_unrecorded(&self, root: &Path, name: &str) -> Result<()> {
        let (root, name) = (root.to_owned(), name.to_owned());
        blocking(move || leftovers::take_unrecorded(&root, &name)).await
    }

    /// Judges what was found.
    async fn judged(
        &self,
        here: &Host,
        options: &PruneOptions,
        mut found: Vec<Listed>,
    ) -> Vec<(Listed, Result<(RuntimeRecord, Verdict)>)> {
        let take =
            |found: &mut Listed| std::mem::replace(&mut found.record, Err(taken(&found.name)));
        let records: Vec<_> = found.iter_mut().map(take).collect();
        let (here, root) = (here.clone(), options.root.clone());
        let judging = move || {
            let verdicts = here.judge_all(records.iter().flatten());
            let mut verdicts = verdicts.into_iter();
            let judged = records.into_iter().map(|record| {
                let record = record?;
                let verdict = verdicts.next().expect("each record is judged");
                // Others may have written the record; the claim is the host's own.
                let is_claimed = |root: &PathBuf| leftovers::is_claimed(root, &record.name);
                match root.as_ref().is_some_and(is_claimed) {
                    true => Ok((record, Verdict::Alive)),
                    false => Ok((record, verdict)),
                }
            });
            judged.collect::<Vec<_>>()
        };
        let judged = blocking(judging).await;
        found.into_iter().zip(judged).collect()
    }

    /// `None` where it went.
    async fn prune_one(
        &self,
        here: &Host,
        options: &PruneOptions,
        found: &Listed,
        record: Result<(RuntimeRecord, Verdict)>,
    ) -> Result<Option<Verdict>> {
        let (record, verdict) = record?;
        if !goes(&record, verdict, here, options, |pid| here.process(pid)) {
            return Ok(Some(verdict));
        }
        if options.pretend {
            let stays = record.config.durable
                || (options.records_only && self.has_leftovers(here, options, &record).await?);
            return Ok(stays.then_some(verdict));
        }
        if !self.take_leftovers_of(here, options, &record).await? {
            return Ok(Some(verdict));
        }
        if record.config.durable {
            self.lay_down(record).await?;
            return Ok(Some(verdict));
        }
        self.remove_listed(found).await?;
        Ok(None)
    }

    /// Takes away what `record`, whose processes have ended, has left here, unless `options` say
    /// that it stays. Returns whether nothing is left any more: what a process claims stays.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn take_leftovers_of(
        &self,
        here: &Host,
        options: &PruneOptions,
        record: &RuntimeRecord,
    ) -> Result<bool> {
        let (record, here, options) = (record.clone(), here.clone(), options.clone());
        blocking(move || {
            let left = Leftovers::of(&record, &here, options.root.as_deref())?;
            if !left.is_empty() && options.records_only {
                return Ok(false);
            }
            left.take_away()
        })
        .await
    }

    async fn has_leftovers(
        &self,
        here: &Host,
        options: &PruneOptions,
        record: &RuntimeRecord,
    ) -> Result<bool> {
        let (record, here, root) = (record.clone(), here.clone(), options.root.clone());
        let look =
            move || Leftovers::of(&record, &here, root.as_deref()).map(|left| !left.is_empty());
        blocking(look).await
    }

    /// A durable runtime that nobody is in any more is nobody's, until somebody runs it again.
    async fn lay_down(&self, mut record: RuntimeRecord) -> Result<()> {
        // Somebody may run it again by now.
        if record.is_laid_down() || self.load(&record.name).await? != record {
            return Ok(());
        }
        record.lay_down();
        self.save(&record).await
    }
}

/// Whether a record goes, as far as what is known of its owner is concerned.
fn goes(
    record: &RuntimeRecord,
    verdict: Verdict,
    here: &Host,
    options: &PruneOptions,
    process: impl Fn(i32) -> Process,
) -> bool {
    let author = &record.author;
    let is_of_user = |user: &String| *user == author.user_name;
    if !options.user.as_ref().is_none_or(is_of_user) {
        return false;
    }
    match verdict {
        Verdict::Ended => true,
        Verdict::Alive => false,
        Verdict::Unknown => {
            let is_older = match (record.created(), here.booted) {
                (Some(created), Some(booted)) => created < booted,
                _ => false,
            };
            let is_here = author.host_name == here.name;
            let monitor = record
                .status
                .monitor
                .and_then(|pid| i32::try_from(pid).ok());
            let is_watched = is_here && monitor.is_some_and(|pid| process(pid) != Process::Gone);
            options.from_before_boot
                && is_older
                && (is_here || options.ignore_host)
                && (!is_watched || options.ignore_monitor)
        }
    }
}

fn taken(name: &str) -> RuntimeError {
    RuntimeError::UnknownRuntime {
        name: name.to_owned(),
    }
}
