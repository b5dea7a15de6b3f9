//! What one side answered, and how two answers are compared.

use nix::errno::Errno;

/// The answer of one side to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes, of which the first is at this offset in the file.
    Bytes(u64, Vec<u8>),
    /// A number, such as an offset.
    Number(i64),
    /// Anything else.
    Text(String),
    /// It failed.
    Failed(Errno),
}

impl Outcome {
    /// The answer as a word or two, with what matters beside `other`.
    pub(super) fn describe_beside(&self, other: &Self) -> String {
        match (self, other) {
            (Self::Bytes(start, bytes), Self::Bytes(_, others)) => {
                let equal = bytes.iter().zip(others).take_while(|(a, b)| a == b).count();
                let at = start + equal as u64;
                let end = bytes.len().min(equal + 8);
                format!(
                    "{} bytes, from {at}: {:02x?}",
                    bytes.len(),
                    &bytes[equal..end]
                )
            }
            (Self::Bytes(_, bytes), _) => format!("{} bytes", bytes.len()),
            (Self::Number(number), _) => number.to_string(),
            (Self::Text(text), _) => text.clone(),
            (Self::Failed(errno), _) => format!("{errno:?}"),
        }
    }
}

impl From<nix::Result<Outcome>> for Outcome {
    fn from(result: nix::Result<Outcome>) -> Self {
        result.unwrap_or_else(Self::Failed)
    }
}

/// The errno of an error of the standard library.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn bytes_are_described_from_where_they_differ() {
        let left = Outcome::Bytes(100, vec![1, 2, 3]);
        let right = Outcome::Bytes(100, vec![1, 9, 3]);
        assert_eq!(left.describe_beside(&right), "3 bytes, from 101: [02, 03]");
    }
}
