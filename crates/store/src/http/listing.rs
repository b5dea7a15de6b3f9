//! Listings, which only Farseek's own server gives: one line an entry, under a reserved prefix.
//!
//! The content type is what tells it from a web server that answers anything with a page. A line
//! of tags is `folder NAME`, `tag NAME` or `namespace NAME`; a line of digests is a digest.

use bytes::{Bytes, BytesMut};
use farseek_object::Digest;
use futures::stream::{self, BoxStream, StreamExt};

use crate::error::{Result, StoreError};
use crate::repository::TagEntry;

/// The content type of a listing.
pub(crate) const CONTENT_TYPE: &str = "text/vnd.farseek.listing";

/// No line of a listing is longer: a digest has 56 characters, a file name 255.
const LINE_LIMIT: usize = 4096;

/// The line of one entry, without its end.
pub(crate) fn tag_line(entry: &TagEntry) -> String {
    match entry {
        TagEntry::Folder(name) => format!("folder {name}"),
        TagEntry::Tag(name) => format!("tag {name}"),
        TagEntry::Namespace(name) => format!("namespace {name}"),
    }
}

/// The entries of a folder, from the whole listing.
pub(super) fn parse_tags(source: &str, text: &[u8]) -> Result<Vec<TagEntry>> {
    let text = std::str::from_utf8(text).map_err(|_| strange(source, "not UTF-8"))?;
    let entries = text.lines().map(|line| {
        let parsed = match line.split_once(' ') {
            Some(("folder", name)) => Some(TagEntry::Folder(name.to_owned())),
            Some(("tag", name)) => Some(TagEntry::Tag(name.to_owned())),
            Some(("namespace", name)) => name.parse().ok().map(TagEntry::Namespace),
            _ => None,
        };
        parsed.ok_or_else(|| strange(source, line))
    });
    let mut entries = entries.collect::<Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// The digests of a listing as it arrives.
pub(super) fn digests(
    source: String,
    body: BoxStream<'static, Result<Bytes>>,
) -> BoxStream<'static, Result<Digest>> {
    let lines = Lines {
        source,
        body,
        rest: BytesMut::new(),
        done: false,
    };
    stream::unfold(lines, |mut lines| async move {
        let digest = lines.next().await.transpose()?;
        lines.done |= digest.is_err();
        Some((digest, lines))
    })
    .boxed()
}

struct Lines {
    source: String,
    body: BoxStream<'static, Result<Bytes>>,
    rest: BytesMut,
    done: bool,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Digest>> {
        while !self.done {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                return self.parse(&line[..end]).map(Some);
            }
            if self.rest.len() > LINE_LIMIT {
                return Err(strange(&self.source, "an endless line"));
            }
            match self.body.next().await.transpose()? {
                Some(piece) => self.rest.extend_from_slice(&piece),
                None => self.done = true,
            }
        }
        if !self.rest.is_empty() {
            return Err(strange(&self.source, "half a line at its end"));
        }
        Ok(None)
    }

    fn parse(&self, line: &[u8]) -> Result<Digest> {
        let text = String::from_utf8_lossy(line);
        text.parse().map_err(|_| strange(&self.source, &text))
    }
}

fn strange(source: &str, found: &str) -> StoreError {
    let found: String = found.chars().take(80).collect();
    StoreError::Corrupt {
        location: source.to_owned(),
        reason: format!("its listing holds '{found}'"),
    }
}
