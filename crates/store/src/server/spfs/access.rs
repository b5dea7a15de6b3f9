//! Who may do what: pure.

use std::fmt;
use std::sync::Arc;

use farseek_object::Digest;
use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::error::{Result, StoreError};
use crate::grpc::Token;

/// What a client may do. Who may write may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing.
    None,
    /// Read objects, payloads and tags.
    Read,
    /// Add objects, payloads and versions of tags as well.
    Write,
}

/// Who may do what.
///
/// Tokens are kept as their digests and compared in constant time: neither a dump of memory nor
/// the time of an answer tells one. Removing is a right that no token has by itself: it is allowed
/// for all who may write, or for nobody.
#[derive(Clone)]
pub struct Access {
    anyone: Right,
    tokens: Arc<Vec<(Digest, Right)>>,
    removal: bool,
}

impl Access {
    /// Whoever can connect has `right`.
    pub fn anyone(right: Right) -> Self {
        Self {
            anyone: right,
            tokens: Arc::default(),
            removal: false,
        }
    }

    /// Who has one of these tokens has its right, and others have none. One a line: `read TOKEN`
    /// or `write TOKEN`; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// `Invalid`, which names the line and never the token; also where there is none at all.
    pub fn tokens(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let tokens: Vec<_> = lines
            .map(|(at, line)| parse(line).ok_or_else(|| invalid(format!("line {}", at + 1))))
            .collect::<Result<_>>()?;
        if tokens.is_empty() {
            return Err(invalid("the whole file".to_owned()));
        }
        Ok(Self {
            tokens: Arc::new(tokens),
            ..Self::anyone(Right::None)
        })
    }

    /// The same, where nobody may do more than `right`.
    #[must_use]
    pub fn at_most(mut self, right: Right) -> Self {
        self.anyone = self.anyone.min(right);
        let lower = |(token, had): &(Digest, Right)| (*token, (*had).min(right));
        self.tokens = Arc::new(self.tokens.iter().map(lower).collect());
        self
    }

    /// The same, where who may write may remove as well, or not.
    #[must_use]
    pub fn with_removal(self, removal: bool) -> Self {
        Self { removal, ..self }
    }

    /// Whether a request with `headers` may do what it wants.
    pub(super) fn check(&self, headers: &HeaderMap, want: Want) -> Result<(), Refusal> {
        let right = self.right(headers);
        let needed = match want {
            Want::Read => Right::Read,
            Want::Write | Want::Remove => Right::Write,
        };
        match right {
            _ if right >= needed && (want != Want::Remove || self.removal) => Ok(()),
            _ if right >= needed => Err(Refusal::Removal),
            Right::None => Err(Refusal::Stranger),
            _ => Err(Refusal::ReadOnly),
        }
    }

    fn right(&self, headers: &HeaderMap) -> Right {
        let sent = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = sent.and_then(|sent| {
            let (scheme, token) = sent.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let Some(token) = token.map(|token| Digest::of(token.as_bytes())) else {
            return self.anyone;
        };
        // All of them are looked at, whichever it is.
        let known = self
            .tokens
            .iter()
            .map(|(known, right)| match same(known, &token) {
                true => *right,
                false => Right::None,
            });
        known.fold(self.anyone, Right::max)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("anyone", &self.anyone)
            .field("tokens", &self.tokens.len())
            .field("removal", &self.removal)
            .finish()
    }
}

fn parse(line: &str) -> Option<(Digest, Right)> {
    let (right, token) = line.split_once(char::is_whitespace)?;
    let right = match right {
        "read" => Right::Read,
        "write" => Right::Write,
        _ => return None,
    };
    let token = token.trim();
    // Whoever sends it obeys the same rules.
    token.parse::<Token>().ok()?;
    Some((Digest::of(token.as_bytes()), right))
}

fn invalid(place: String) -> StoreError {
    StoreError::Invalid {
        what: "list of tokens",
        text: place,
        reason: "write 'read TOKEN' or 'write TOKEN', one a line, of visible ASCII characters"
            .to_owned(),
    }
}

/// Whether two digests are the same, in a time that does not depend on where they differ.
fn same(one: &Digest, other: &Digest) -> bool {
    let bytes = one.as_bytes().iter().zip(other.as_bytes());
    let difference = bytes.fold(0, |difference, (one, other)| difference | (one ^ other));
    std::hint::black_box(difference) == 0
}

/// What a request is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
    /// All that a cleaner asks is of use to nobody else.
    Remove,
}

/// Marks the request of a client that may write: of what it asks for it may count on what it finds,
/// so that is made young. Who may only read is about to refer to nothing, and keeps nothing young.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer;

impl Want {
    /// What the call of this path does; one that is not known counts as writing.
    pub(super) fn of_call(path: &str) -> Self {
        match path.rsplit('/').next().unwrap_or_default() {
            "Ping" | "HasObject" | "ReadObject" | "FindDigests" | "IterObjects" | "WalkObjects"
            | "IterDigests" | "HasPayload" | "OpenPayload" | "LsTags" | "ResolveTag"
            | "FindTags" | "IterTagSpecs" | "ReadTag" | "LookForBlobs" | "GetSmall" => Self::Read,
            "RemoveObject"
            | "RemoveObjectIfOlderThan"
            | "RemovePayload"
            | "RemoveTag"
            | "RemoveTagStream"
            | "Horizon"
            | "Facts"
            | "Aside"
            | "Restore"
            | "RemovePayloadIfOlderThan" => Self::Remove,
            _ => Self::Write,
        }
    }

    /// Whether the call of this path makes something young for who may write.
    pub(super) fn counts_on(path: &str) -> bool {
        let name = path.rsplit('/').next();
        matches!(name, Some("HasObject" | "HasPayload" | "LookForBlobs"))
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Who asks has shown no right at all.
    #[error("this server wants a token: none was sent, or not one that it knows")]
    Stranger,
    /// Who asks may only read.
    #[error("this server lets you read, and not write")]
    ReadOnly,
    /// Who asks may write, and nobody may remove.
    #[error("this server does not let anybody remove anything")]
    Removal,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        [(AUTHORIZATION, value.parse().unwrap())]
            .into_iter()
            .collect()
    }

    fn outcomes(access: &Access, headers: &HeaderMap) -> [Result<(), Refusal>; 3] {
        [Want::Read, Want::Write, Want::Remove].map(|want| access.check(headers, want))
    }

    #[test]
    fn tokens_give_their_rights_and_no_more() {
        let text = "# ours\nread r-token\n\n  write   w-token  \n";
        let access = Access::tokens(text).unwrap();
        let stranger = [Err(Refusal::Stranger); 3];
        let reader = [Ok(()), Err(Refusal::ReadOnly), Err(Refusal::ReadOnly)];
        let writer = [Ok(()), Ok(()), Err(Refusal::Removal)];
        assert_eq!(outcomes(&access, &HeaderMap::new()), stranger);
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer r-toke",
            "Bearer r-token2",
            "r-token",
            "Basic r-token",
        ] {
            assert_eq!(outcomes(&access, &headers(value)), stranger, "{value}");
        }
        assert_eq!(outcomes(&access, &headers("Bearer r-token")), reader);
        assert_eq!(outcomes(&access, &headers("bearer w-token")), writer);
        let removing = access.clone().with_removal(true);
        assert_eq!(outcomes(&removing, &headers("Bearer w-token")), [Ok(()); 3]);
        assert_eq!(outcomes(&removing, &headers("Bearer r-token")), reader);
        let reading = removing.at_most(Right::Read);
        assert_eq!(outcomes(&reading, &headers("Bearer w-token")), reader);
        assert!(!format!("{access:?}").contains("token2"));
    }

    #[test]
    fn a_list_that_is_not_understood_is_refused_and_not_shown() {
        for text in [
            "",
            "# none\n",
            "secret",
            "admin secret",
            "read",
            "read sec ret",
            "write \u{e9}secret",
        ] {
            let error = Access::tokens(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let error = Access::tokens("read a\nwrite\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn anyone_has_what_all_have() {
        let access = Access::anyone(Right::Read);
        let reader = [Ok(()), Err(Refusal::ReadOnly), Err(Refusal::ReadOnly)];
        assert_eq!(outcomes(&access, &HeaderMap::new()), reader);
        assert_eq!(outcomes(&access, &headers("Bearer x")), reader);
    }
}
