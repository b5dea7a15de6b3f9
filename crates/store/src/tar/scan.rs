//! One pass over the headers of an archive: what is in it, and where.
//!
//! The blocks are walked here and not by a library's iterator, because what is kept is where
//! things *are*: the bytes of each file, and the whole run of blocks that stands for an entry, long
//! names and extended headers included, so that it can be copied as it is. Nothing is believed:
//! checksums are checked, extensions are limited in size, every entry must end within the
//! archive, and the archive with an end mark. What cannot be read in place (sparse files), and
//! names that would leave the directory they are unpacked in, are refused.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tar::{EntryType, Header, PaxExtensions};

use crate::error::{Result, StoreError};

/// Bytes of a block: every header is one, and all data is padded to whole ones.
const BLOCK: u64 = 512;

/// No long name or extended header is larger: paths end at 4 KiB.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// One entry of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its path without `./` before and `/` behind it; `None` where it is not UTF-8.
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    /// Where the bytes of a file are.
    pub(super) data: Range<u64>,
    /// Every block that belongs to it.
    pub(super) raw: Range<u64>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Another name of the file that is named here.
    HardLink(Option<String>),
    /// A symbolic link, a device and the like.
    Other,
}

/// An archive being read.
struct Source<'a> {
    file: &'a File,
    path: &'a Path,
    length: u64,
}

/// Hands every entry of the archive at `path`, of `length` bytes, to `take`, in order.
pub(super) fn scan(
    file: &File,
    path: &Path,
    length: u64,
    mut take: impl FnMut(Item) -> Result<()>,
) -> Result<()> {
    let source = Source { file, path, length };
    let mut at = 0;
    while let Some(item) = source.entry(at)? {
        at = item.raw.end;
        take(item)?;
    }
    Ok(())
}

/// What stands before a header and changes what it says.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    /// Whether there was any.
    some: bool,
}

impl Source<'_> {
    /// The entry that begins at `start`; `None` at the end mark.
    fn entry(&self, start: u64) -> Result<Option<Item>> {
        let mut extensions = Extensions::default();
        let mut at = start;
        loop {
            let block = self.block(at)?;
            if block.iter().all(|byte| *byte == 0) {
                if extensions.some {
                    return Err(self.corrupt(at, "an extended header belongs to nothing"));
                }
                return Ok(None);
            }
            let header = self.header(&block, at)?;
            let data = at + BLOCK;
            let size = header.entry_size();
            let size = size.map_err(|_| self.corrupt(at, "a size is not a number"))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.text(data, size)?),
                EntryType::GNULongLink => extensions.link = Some(self.text(data, size)?),
                EntryType::XHeader => self.pax(data, size, &mut extensions)?,
                _ => return self.item(start, at, &header, size, extensions).map(Some),
            }
            extensions.some = true;
            at = self.padded_end(data, size)?;
        }
    }

    fn block(&self, at: u64) -> Result<[u8; BLOCK as usize]> {
        let mut block = [0; BLOCK as usize];
        if at.saturating_add(BLOCK) > self.length {
            let reason = "it ends there without an end mark: it was cut short";
            return Err(self.corrupt(at, reason));
        }
        self.read(&mut block, at)?;
        Ok(block)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        let read = self.file.read_exact_at(buffer, at);
        read.map_err(StoreError::io("read", self.path))
    }

    /// The header in `block`, whose checksum must be right.
    fn header(&self, block: &[u8; BLOCK as usize], at: u64) -> Result<Header> {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        let checksum =
            |range: Range<usize>| block[range].iter().copied().map(u32::from).sum::<u32>();
        // The checksum's own field counts as spaces.
        let sum = checksum(0..148) + 8 * u32::from(b' ') + checksum(156..block.len());
        if header.cksum().ok() == Some(sum) {
            return Ok(header);
        }
        Err(self.corrupt(at, match at {
            0 => "it is not a tar archive, or a compressed one: only plain ones can be read in place",
            _ => "a header is damaged",
        }))
    }

    /// The bytes of an extension.
    fn extension(&self, data: u64, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(self.corrupt(data, "an extended header is larger than 1 MiB"));
        }
        self.padded_end(data, size)?;
        let mut bytes = vec![0; usize::try_from(size).expect("it is at most a mebibyte")];
        self.read(&mut bytes, data)?;
        Ok(bytes)
    }

    fn text(&self, data: u64, size: u64) -> Result<Vec<u8>> {
        let mut text = self.extension(data, size)?;
        let end = text.iter().position(|byte| *byte == 0);
        text.truncate(end.unwrap_or(text.len()));
        Ok(text)
    }

    fn pax(&self, data: u64, size: u64, extensions: &mut Extensions) -> Result<()> {
        let bytes = self.extension(data, size)?;
        for pair in PaxExtensions::new(&bytes) {
            let pair = pair.map_err(|_| self.corrupt(data, "an extended header is damaged"))?;
            match pair.key_bytes() {
                b"path" => extensions.name = Some(pair.value_bytes().to_vec()),
                b"linkpath" => extensions.link = Some(pair.value_bytes().to_vec()),
                b"size" => {
                    let size = pair.value().ok().and_then(|size| size.parse().ok());
                    let size = size.ok_or_else(|| self.corrupt(data, "a size is not a number"))?;
                    extensions.size = Some(size);
                }
                key if key.starts_with(b"GNU.sparse") => return Err(self.sparse(data)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The entry of `header` at `at`, with what stood before it from `start` on.
    fn item(
        &self,
        start: u64,
        at: u64,
        header: &Header,
        size: u64,
        extensions: Extensions,
    ) -> Result<Item> {
        let size = extensions.size.unwrap_or(size);
        let name = extensions
            .name
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions
            .link
            .or_else(|| Some(header.link_name_bytes()?.into_owned()));
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Link => match link {
                Some(link) => Kind::HardLink(self.name(&link, at)?),
                None => Kind::HardLink(None),
            },
            EntryType::GNUSparse => return Err(self.sparse(at)),
            EntryType::XGlobalHeader => {
                let mut ignored = Extensions::default();
                self.pax(at + BLOCK, size, &mut ignored)?;
                if ignored.name.is_some() || ignored.link.is_some() || ignored.size.is_some() {
                    return Err(self.corrupt(at, "a global header gives every entry one name"));
                }
                Kind::Other
            }
            _ => Kind::Other,
        };
        let no_data = matches!(header.entry_type(), EntryType::Symlink | EntryType::Link)
            || kind == Kind::Directory;
        if no_data && size != 0 {
            // Programs do not agree whether the data would follow.
            return Err(self.corrupt(at, "a link or a directory says that it has data"));
        }
        let name = match header.entry_type() {
            EntryType::XGlobalHeader => None,
            _ => self.name(&name, at)?,
        };
        let data = at + BLOCK;
        Ok(Item {
            name,
            kind,
            raw: start..self.padded_end(data, size)?,
            data: data..data + size,
        })
    }

    /// A path as it is looked up by.
    fn name(&self, bytes: &[u8], at: u64) -> Result<Option<String>> {
        let parts = || bytes.split(|byte| *byte == b'/');
        if bytes.starts_with(b"/") || parts().any(|part| part == b"..") {
            let name = String::from_utf8_lossy(bytes);
            let reason = format!("'{name}' leads out of the archive");
            return Err(self.corrupt(at, &reason));
        }
        let parts: Vec<&[u8]> = parts()
            .filter(|part| !matches!(*part, b"" | b"."))
            .collect();
        Ok(String::from_utf8(parts.join(&b'/')).ok())
    }

    /// Where the blocks of `size` bytes at `data` end, which must be within the archive.
    fn padded_end(&self, data: u64, size: u64) -> Result<u64> {
        let end = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|padded| data.checked_add(padded));
        end.filter(|end| *end <= self.length)
            .ok_or_else(|| self.corrupt(data, "an entry goes on beyond its end: it was cut short"))
    }

    fn sparse(&self, at: u64) -> StoreError {
        self.corrupt(
            at,
            "a file is stored as a sparse one: make the archive without --sparse",
        )
    }

    fn corrupt(&self, at: u64, reason: &str) -> StoreError {
        StoreError::Corrupt {
            location: format!("tar:{}", self.path.display()),
            reason: format!("at byte {at}: {reason}"),
        }
    }
}
