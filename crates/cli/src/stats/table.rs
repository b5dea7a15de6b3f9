//! A report for a person.

use super::Report;
use crate::size::human;

impl Report {
    /// A few aligned lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut rows = vec![
            ("hits", self.hits()),
            ("misses", self.misses()),
            ("bytes", self.bytes()),
            ("requests", self.requests()),
            ("now", self.now()),
            ("readahead", self.readahead()),
            ("opens", self.opens()),
            ("disk", self.disk()),
            ("local", self.local()),
        ];
        rows.extend(self.sources());
        rows.extend(self.slowest());
        let line = |(name, text): (&str, String)| format!("  {name:<10} {text}").trim_end().into();
        rows.into_iter().map(line).collect()
    }

    fn hits(&self) -> String {
        let (memory, disk) = (self.hits_memory, self.hits_disk);
        let all = memory + disk + self.joined + self.misses;
        let share = 100.0 * (memory + disk) as f64 / all.max(1) as f64;
        format!("{memory} blocks from memory, {disk} from the disk: {share:.1} %")
    }

    fn misses(&self) -> String {
        format!(
            "{} blocks fetched, {} waited for a fetch of others",
            self.misses, self.joined
        )
    }

    fn bytes(&self) -> String {
        let (asked, fetched) = (human(self.bytes_asked), human(self.bytes_fetched));
        match self.amplification() {
            Some(factor) => format!("{asked} asked for, {fetched} fetched: {factor:.2} times"),
            None => format!("{asked} asked for, {fetched} fetched"),
        }
    }

    fn requests(&self) -> String {
        let Self {
            fetches,
            retries,
            errors,
            ..
        } = self;
        format!("{fetches} made, {retries} of them repeated; {errors} fetches failed")
    }

    fn now(&self) -> String {
        let (flight, memory) = (human(self.bytes_in_flight), human(self.bytes_cached));
        let unwritten = human(self.bytes_unwritten);
        format!("{flight} in flight, {memory} of blocks in memory, {unwritten} wait for the disk")
    }

    fn readahead(&self) -> String {
        let (ahead, wasted) = (human(self.readahead_bytes), human(self.readahead_wasted));
        let (files, files_wasted) = (self.files_ahead, self.files_ahead_wasted);
        format!(
            "{ahead} fetched ahead, {wasted} of it for nothing; {files} small files, \
             {files_wasted} of them for nothing"
        )
    }

    fn opens(&self) -> String {
        let (kernel, us) = (self.opens_passthrough, self.opens_cached);
        match self.passthrough {
            true => format!("{kernel} of local files, read by the kernel itself; {us} of others"),
            false => format!("{us}; the kernel cannot read local files by itself here"),
        }
    }

    fn disk(&self) -> String {
        let disk = &self.disk;
        let evicted = human(disk.evicted_bytes);
        format!(
            "{} blocks written, {} dropped, {evicted} evicted, {} blocks damaged, {} failures",
            disk.written, disk.dropped, disk.damaged, disk.failures
        )
    }

    fn local(&self) -> String {
        format!(
            "{} files became local, {} could not; {} were condemned",
            self.promotions, self.promotion_failures, self.condemned
        )
    }

    fn sources(&self) -> impl Iterator<Item = (&'static str, String)> {
        let row = |(at, (source, count)): (usize, (&String, &u64))| {
            (
                if at == 0 { "errors" } else { "" },
                format!("{count} from {source}"),
            )
        };
        self.errors_by_source.iter().enumerate().map(row)
    }

    fn slowest(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.slowest.iter().enumerate().map(|(at, slow)| {
            let digest = slow.digest.get(..10).unwrap_or(&slow.digest);
            let (bytes, location) = (human(slow.bytes), &slow.location);
            let text = format!("{} ms  {bytes} of {digest} from {location}", slow.millis);
            (if at == 0 { "slowest" } else { "" }, text)
        })
    }
}
