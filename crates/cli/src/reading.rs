//! Flags about how payloads are read and kept. Each lies over its key of the configuration.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::config::{Config, Percent, PromoteName, VerifyName};
use crate::exit::Failure;
use crate::size;

/// What a command that reads payloads can be told.
#[derive(Debug, Default, Args)]
pub(crate) struct ReadingArgs {
    /// Give up on a remote that has sent nothing for so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    stall: Option<u64>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    fetch: FetchArgs,
}

/// What is believed, and what becomes local.
#[derive(Debug, Default, Args)]
struct TrustArgs {
    /// When files are checked against their digests: small ones at once and large ones once they
    /// are whole (auto), all before their first byte is served (strict), never (off)
    #[arg(long, value_name = "WHEN", value_enum, hide_possible_values = true)]
    verify: Option<VerifyName>,
    /// When files become part of the local repository: once they are whole and verified
    /// (complete), once somebody jumps about in them (on-seek), never
    #[arg(long, value_name = "WHEN", value_enum, hide_possible_values = true)]
    promote: Option<PromoteName>,
}

/// What is kept.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Caches")]
struct CacheArgs {
    /// Memory for blocks of files
    #[arg(long, value_name = "SIZE", value_parser = size::parse, visible_alias = "cache-size")]
    blob_cache_max_bytes: Option<u64>,
    /// Blocks of files larger than this stay in memory only while they are being read
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    blob_cache_max_single_bytes: Option<u64>,
    /// Keep blocks on the disk in this directory
    #[arg(long, value_name = "DIR")]
    disk_cache: Option<PathBuf>,
    /// Keep no blocks on the disk
    #[arg(long, conflicts_with_all = ["disk_cache", "disk_cache_max_bytes"])]
    no_disk_cache: bool,
    /// The most that blocks may take on the disk, of all mounts together
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    disk_cache_max_bytes: Option<u64>,
    /// The share of the disk that blocks leave free
    #[arg(long, value_name = "PERCENT")]
    disk_cache_keep_free: Option<Percent>,
}

/// How things are fetched.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Fetching")]
struct FetchArgs {
    /// Bytes of a block: a power of two from 4K to 16M
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    block_size: Option<u64>,
    /// Files up to this size are fetched whole and verified first
    #[arg(long, value_name = "SIZE", value_parser = size::parse, visible_alias = "whole-fetch-max")]
    whole_fetch_max_bytes: Option<u64>,
    /// Memory for what is under way
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    in_flight_max_bytes: Option<u64>,
    /// Requests that may be under way at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..65536))]
    max_fetches: Option<u64>,
    /// The most that is fetched ahead of one sequential reader; 0 for nothing
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    readahead_max_bytes: Option<u64>,
    /// The most that is fetched ahead of all readers together
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    readahead_budget_bytes: Option<u64>,
}

impl ReadingArgs {
    /// Lays the flags over `config`, which must be valid afterwards.
    pub(crate) fn overlay(&self, config: &mut Config) -> Result<()> {
        set(&mut config.reader.stall_seconds, self.stall);
        set(&mut config.reader.verify, self.trust.verify);
        set(&mut config.reader.promote, self.trust.promote);
        self.cache.overlay(config)?;
        self.fetch.overlay(config)?;
        let checked = config.check();
        checked.map_err(|error| Failure::usage(error.to_string()))
    }
}

impl CacheArgs {
    fn overlay(&self, config: &mut Config) -> Result<()> {
        let (memory, disk) = (&mut config.fuse, &mut config.cache);
        set(&mut memory.blob_cache_max_bytes, self.blob_cache_max_bytes);
        set(
            &mut memory.blob_cache_max_single_bytes,
            self.blob_cache_max_single_bytes,
        );
        set(&mut disk.disk_cache_max_bytes, self.disk_cache_max_bytes);
        set(&mut disk.disk_cache_keep_free, self.disk_cache_keep_free);
        disk.enabled &= !self.no_disk_cache;
        if let Some(directory) = &self.disk_cache {
            // A process in the background works in another directory.
            let directory = std::path::absolute(directory)
                .map_err(|_| Failure::usage("--disk-cache is empty: say which directory"))?;
            disk.directory = Some(directory);
            disk.enabled = true;
        }
        Ok(())
    }
}

impl FetchArgs {
    fn overlay(&self, config: &mut Config) -> Result<()> {
        let reader = &mut config.reader;
        set(&mut reader.block_size, self.block_size);
        set(
            &mut reader.whole_fetch_max_bytes,
            self.whole_fetch_max_bytes,
        );
        set(&mut reader.in_flight_max_bytes, self.in_flight_max_bytes);
        let fetches = self.max_fetches.map(usize::try_from).transpose()?;
        set(&mut reader.max_fetches, fetches);
        set(&mut reader.readahead_max_bytes, self.readahead_max_bytes);
        set(
            &mut reader.readahead_budget_bytes,
            self.readahead_budget_bytes,
        );
        Ok(())
    }
}

fn set<T>(at: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *at = value;
    }
}
