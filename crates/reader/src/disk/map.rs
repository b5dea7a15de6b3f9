//! The map beside a data file: which blocks are there, with the checksums of each.
//!
//! Little-endian. A header of 64 bytes, then four bytes for each segment of the payload (when it
//! was last used, in seconds since 1970), then a record for each block.
//!
//! | header offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `FSKMAP1\n` |
//! | 8 | 4 | block size |
//! | 12 | 4 | zero |
//! | 16 | 8 | payload size |
//! | 24 | 32 | digest of the payload |
//! | 56 | 4 | CRC32C of bytes 0 to 55 |
//! | 60 | 4 | the mark: CRC32C of bytes 0 to 59 and `whole`, or anything else where it is not set |
//!
//! The mark says that all blocks together have been hashed and are the payload. Whoever writes a
//! block takes it away first.
//!
//! A block's record is its seal, and the CRC32C of each of its pieces of 16 KiB, four bytes each, so
//! that a page of it can be read and checked without the rest. A piece that a short last block does
//! not have counts as zero. The seal is the CRC32C of those, the block's index and the payload's
//! digest: a record that is torn, misplaced or of another payload is no record.

use farseek_object::Digest;

/// Bytes of the header.
pub(crate) const HEADER_LEN: u64 = 64;
/// Where the mark is in the header.
pub(crate) const MARK_AT: u64 = 60;
/// Bytes of the mark.
pub(crate) const MARK_LEN: u64 = HEADER_LEN - MARK_AT;
/// Bytes of a record by which it is seen to be there: the seal and the first checksum.
pub(crate) const RECORD_HEAD: usize = 8;
/// Bytes of a block that have a checksum of their own: a page costs little more than a page, and
/// the map takes a four-thousandth of the payload.
pub(crate) const PIECE_BYTES: u64 = 16 << 10;
/// Bytes of a checksum.
const CHECKSUM_LEN: u64 = 4;
/// Bytes of a payload that are evicted together where the payload is larger than that.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

const MAGIC: &[u8; 8] = b"FSKMAP1\n";

/// Where everything is in the files of one payload. Pure arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) digest: Digest,
    /// Bytes of a block: a power of two, or the size of a payload that is one block. Fits `u32`.
    pub(crate) block_size: u64,
    /// Bytes of the payload, at least one.
    pub(crate) payload_size: u64,
}

impl Geometry {
    pub(crate) fn blocks(&self) -> u64 {
        self.payload_size.div_ceil(self.block_size)
    }

    pub(crate) fn segments(&self) -> u64 {
        self.payload_size.div_ceil(SEGMENT_BYTES)
    }

    pub(crate) fn segment_of(&self, block: u64) -> u64 {
        block * self.block_size / SEGMENT_BYTES
    }

    /// The bytes of `block` in the data file.
    pub(crate) fn block_range(&self, block: u64) -> std::ops::Range<u64> {
        let start = block * self.block_size;
        start..(start + self.block_size).min(self.payload_size)
    }

    /// The blocks that start in `segment`.
    pub(crate) fn blocks_of(&self, segment: u64) -> std::ops::Range<u64> {
        let first = |segment: u64| (segment * SEGMENT_BYTES).div_ceil(self.block_size);
        first(segment)..first(segment + 1).min(self.blocks())
    }

    pub(crate) fn used_at(&self, segment: u64) -> u64 {
        HEADER_LEN + 4 * segment
    }

    /// Bytes of a block's record.
    pub(crate) fn record_len(&self) -> u64 {
        CHECKSUM_LEN * (1 + self.block_size.div_ceil(PIECE_BYTES))
    }

    pub(crate) fn record_at(&self, block: u64) -> u64 {
        HEADER_LEN + 4 * self.segments() + self.record_len() * block
    }

    pub(crate) fn map_len(&self) -> u64 {
        self.record_at(self.blocks())
    }

    pub(crate) fn header(&self) -> [u8; HEADER_LEN as usize] {
        let mut header = [0; HEADER_LEN as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&(self.block_size as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.payload_size.to_le_bytes());
        header[24..56].copy_from_slice(self.digest.as_bytes());
        let checksum = crc32c::crc32c(&header[..56]);
        header[56..60].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Reads the geometry back from a header, where it is whole.
    pub(crate) fn parse(header: &[u8; HEADER_LEN as usize]) -> Option<Self> {
        let digest = Digest::from_bytes(header[24..56].try_into().ok()?);
        let block_size = u32::from_le_bytes(header[8..12].try_into().ok()?);
        let payload_size = u64::from_le_bytes(header[16..24].try_into().ok()?);
        let block_size = u64::from(block_size);
        let geometry = Self {
            digest,
            block_size,
            payload_size,
        };
        let mark_at = MARK_AT as usize;
        let same = || geometry.header()[..mark_at] == header[..mark_at];
        let valid = block_size > 0 && payload_size > 0 && same();
        valid.then_some(geometry)
    }

    /// The mark of a payload that has been hashed as a whole.
    pub(crate) fn mark(&self) -> [u8; MARK_LEN as usize] {
        let header = crc32c::crc32c(&self.header()[..MARK_AT as usize]);
        crc32c::crc32c_append(header, b"whole").to_le_bytes()
    }

    /// The record of `block` when it holds `bytes`.
    pub(crate) fn record(&self, block: u64, bytes: &[u8]) -> Vec<u8> {
        let mut record = vec![0; self.record_len() as usize];
        let (seal, checksums) = record.split_at_mut(CHECKSUM_LEN as usize);
        for (checksum, piece) in checksums
            .chunks_mut(CHECKSUM_LEN as usize)
            .zip(bytes.chunks(PIECE_BYTES as usize))
        {
            checksum.copy_from_slice(&crc32c::crc32c(piece).to_le_bytes());
        }
        seal.copy_from_slice(&self.seal(block, checksums));
        record
    }

    /// Whether `bytes`, which start at piece `first` of `block` and end where a piece or the block
    /// does, are what its `record` was made of.
    pub(crate) fn holds(&self, record: &[u8], block: u64, first: u64, bytes: &[u8]) -> bool {
        let (seal, checksums) = record.split_at(CHECKSUM_LEN as usize);
        let mut checksums_of = checksums
            .chunks(CHECKSUM_LEN as usize)
            .skip(first as usize)
            .zip(bytes.chunks(PIECE_BYTES as usize));
        seal == self.seal(block, checksums)
            && checksums_of.all(|(checksum, piece)| checksum == crc32c::crc32c(piece).to_le_bytes())
    }

    fn seal(&self, block: u64, checksums: &[u8]) -> [u8; CHECKSUM_LEN as usize] {
        let seal = crc32c::crc32c(checksums);
        let seal = crc32c::crc32c_append(seal, &block.to_le_bytes());
        crc32c::crc32c_append(seal, self.digest.as_bytes()).to_le_bytes()
    }
}

/// Whether a record, or its head, says that a block is there (not yet whether it is whole).
pub(crate) fn is_present(record: &[u8]) -> bool {
    record[..RECORD_HEAD].iter().any(|&byte| byte != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn geometry(block_size: u64, payload_size: u64) -> Geometry {
        Geometry {
            digest: Digest::of(b"payload"),
            block_size,
            payload_size,
        }
    }

    proptest! {
        #[test]
        fn blocks_and_segments_cover_the_payload_once(
            log in 12u32..25, size in 1u64..(1 << 40),
        ) {
            let g = geometry(1 << log, size);
            prop_assert_eq!(g.block_range(0).start, 0);
            prop_assert_eq!(g.block_range(g.blocks() - 1).end, size);
            let mut next = 0;
            for segment in 0..g.segments().min(64) {
                let blocks = g.blocks_of(segment);
                prop_assert_eq!(blocks.start, next);
                next = blocks.end;
                for block in [blocks.start, blocks.end - 1] {
                    prop_assert_eq!(g.segment_of(block), segment);
                }
            }
            prop_assert!(g.record_at(0) >= g.used_at(g.segments() - 1) + 4);
        }

        #[test]
        fn a_header_with_any_bit_flipped_is_no_header(bit in 0usize..480) {
            let g = geometry(1 << 18, 1 << 30);
            let mut header = g.header();
            prop_assert_eq!(Geometry::parse(&header), Some(g));
            header[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Geometry::parse(&header), None);
        }
    }

    #[test]
    fn the_golden_header_and_record() {
        let g = geometry(1 << 18, 1_000_000);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&g.header()[..24]),
            "46534b4d4150310a000004000000000040420f0000000000"
        );
        let record = g.record(0, b"123456789");
        assert_eq!(record.len(), 4 + 4 * 16);
        // The check value of CRC-32/ISCSI.
        assert_eq!(hex(&record[4..12]), "839206e300000000");
        assert_ne!(
            g.record(0, b"x"),
            g.record(1, b"x"),
            "a record is of one block only"
        );
    }
    #[test]
    fn any_pieces_are_checked_by_themselves() {
        let g = geometry(1 << 18, 1 << 30);
        let bytes: Vec<u8> = (0..1u32 << 18).map(|i| (i * 31 % 251) as u8).collect();
        let record = g.record(3, &bytes);
        let piece = PIECE_BYTES as usize;
        assert!(g.holds(&record, 3, 0, &bytes));
        assert!(g.holds(&record, 3, 5, &bytes[5 * piece..7 * piece]));
        assert!(!g.holds(&record, 3, 6, &bytes[5 * piece..7 * piece]));
        assert!(!g.holds(&record, 2, 5, &bytes[5 * piece..7 * piece]));
        let mut torn = record.clone();
        torn[60] ^= 1;
        assert!(
            !g.holds(&torn, 3, 0, &bytes[..piece]),
            "another piece's checksum"
        );
        let short = g.record(0, &bytes[..piece + 1]);
        assert!(g.holds(&short, 0, 1, &bytes[piece..piece + 1]));
    }
}
