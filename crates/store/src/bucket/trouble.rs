//! What went wrong with a bucket, in one sentence: pure.
//!
//! [`wire`](super::wire) turns every answer that is none into a [`Trouble`] and lets it travel
//! through the object store's own errors; here it is found again and explained.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use object_store::Error;

use crate::error::StoreError;

/// Why a request was not answered with what was asked for.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The server said no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's code for it: `NoSuchKey`.
        code: Option<String>,
        /// The server's words.
        message: Option<String>,
    },
    /// It answered with a web page.
    Page {
        /// The HTTP status.
        status: u16,
    },
    /// No byte came or went for so long.
    Silent(Duration),
    /// The connection could not be made, or broke.
    Broken(String),
    /// Whoever gives credentials gave none; the bucket has not been asked.
    NoCredentials {
        /// Who.
        origin: String,
        /// What happened there.
        trouble: Box<Trouble>,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                status,
                code,
                message,
            } => {
                write!(f, "the server answered {status}")?;
                if let Some(code) = code {
                    write!(f, " {code}")?;
                }
                match message {
                    Some(message) => write!(f, " ({message})"),
                    None => Ok(()),
                }
            }
            Self::Page { status } => write!(f, "the server answered {status} with a web page"),
            Self::Silent(stall) => write!(f, "no answer for {} s", stall.as_secs_f64()),
            Self::Broken(reason) => f.write_str(reason),
            Self::NoCredentials { origin, trouble } => {
                write!(f, "no credentials came from {origin}: {trouble}")
            }
        }
    }
}

impl StdError for Trouble {}

impl Trouble {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Page { status } => Some(*status),
            Self::Silent(_) | Self::Broken(_) | Self::NoCredentials { .. } => None,
        }
    }

    /// The same, with the server's code where it is told elsewhere than in the body.
    pub(super) fn or_code(mut self, elsewhere: Option<&str>) -> Self {
        if let Self::Refused { code, .. } = &mut self
            && code.is_none()
        {
            *code = elsewhere.map(str::to_owned);
        }
        self
    }

    fn code(&self) -> &str {
        match self {
            Self::Refused {
                code: Some(code), ..
            } => code,
            _ => "",
        }
    }

    /// Whether asking again may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Broken(_) => true,
            Self::Refused { status, .. } => {
                matches!(status, 408 | 429 | 500 | 502 | 503 | 504) || BUSY.contains(&self.code())
            }
            Self::Page { status } => matches!(status, 429 | 500 | 502 | 503 | 504),
            Self::NoCredentials { trouble, .. } => trouble.may_pass(),
        }
    }
}

/// Codes of who has too much to do, whatever the status: of S3, of whoever gives credentials for it
/// (which answers 400), and of Azure, which may also still be at a copy.
const BUSY: [&str; 14] = [
    "SlowDown",
    "InternalError",
    "RequestTimeout",
    "ServerBusy",
    "Throttling",
    "ThrottlingException",
    "Throttled",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "IDPCommunicationError",
    "OperationTimedOut",
    "PendingCopyOperation",
];

/// The trouble that an error is about.
fn trouble(error: &Error) -> Option<&Trouble> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(trouble) = error.downcast_ref() {
            return Some(trouble);
        }
        cause = error.source();
    }
    None
}

/// There is not even a bucket: in the words of S3 and Google, and in Azure's.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];

/// Whether the key, and nothing but the key, is not there.
pub(super) fn is_absent(error: &Error) -> bool {
    match trouble(error) {
        // To HEAD there is no code.
        Some(trouble @ Trouble::Refused { status: 404, .. }) => {
            !NO_BUCKET.contains(&trouble.code())
        }
        Some(_) => false,
        None => matches!(error, Error::NotFound { .. }),
    }
}

/// Whether the range that was asked for may begin at the end or beyond it.
pub(super) fn may_be_beyond_end(error: &Error) -> bool {
    match trouble(error) {
        Some(trouble) => trouble.status() == Some(416),
        None => matches!(error, Error::Generic { .. }),
    }
}

/// What happened when we were `doing` something to the key at `location`, and what to do about it.
pub(super) fn explain(doing: &'static str, location: String, error: Error) -> StoreError {
    let Some(trouble) = trouble(&error).cloned() else {
        return without_answer(doing, location, &error);
    };
    if trouble.may_pass() {
        return StoreError::Unavailable {
            location,
            reason: format!("cannot {doing} it: {trouble}"),
            source: None,
        };
    }
    let (outcome, what) = meaning(doing, &trouble);
    let reason = format!("cannot {doing} it: {what}: {trouble}");
    match outcome {
        Outcome::Denied => StoreError::Denied { location, reason },
        Outcome::Failed => StoreError::Failed { location, reason },
        Outcome::Absent => StoreError::Invalid {
            what: "repository",
            text: location,
            reason,
        },
    }
}

/// What a refusal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// We may not.
    Denied,
    /// It will not.
    Failed,
    /// There is no bucket.
    Absent,
}

/// What a refusal means and what to do about it.
fn meaning(doing: &str, trouble: &Trouble) -> (Outcome, &'static str) {
    use Outcome::{Absent, Denied, Failed};
    match trouble {
        Trouble::Page { .. } => return (Failed, NO_STORAGE),
        Trouble::NoCredentials { trouble, .. } => {
            return match **trouble {
                Trouble::Page { .. } => (
                    Failed,
                    "who gives credentials was not reached: a proxy may stand in between, or the \
                     endpoint is wrong",
                ),
                _ => (
                    Denied,
                    "check the key, the role and the clock of this machine",
                ),
            };
        }
        _ => {}
    }
    match (trouble.code(), trouble.status()) {
        (code, _) if NO_BUCKET.contains(&code) => (
            Absent,
            "there is no such bucket: make it, or check its name, the endpoint and the region",
        ),
        ("InvalidAccessKeyId" | "NotSignedUp", _) => (
            Denied,
            "the access key is not known there: check the key and the endpoint",
        ),
        ("SignatureDoesNotMatch" | "InvalidSecurity", _) => (
            Denied,
            "the secret key is not the one of the access key, or something in between changes requests",
        ),
        ("AuthenticationFailed" | "AuthorizationFailure" | "InvalidAuthenticationInfo", _) => (
            Denied,
            "the key or the token is not one of this account, or it has expired, or the clock of this \
             machine is wrong",
        ),
        ("ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException", _) => {
            (Denied, "the credentials have expired: get new ones")
        }
        ("InvalidToken" | "InvalidClientTokenId", _) => (
            Denied,
            "the session token is not valid: get new credentials",
        ),
        ("RequestTimeTooSkewed" | "RequestExpired", _) => (
            Denied,
            "the clock of this machine and the server's differ by too much: set the clock",
        ),
        (
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException",
            _,
        )
        | ("", Some(301 | 307)) => (
            Failed,
            "the bucket is in another region or behind another endpoint: give region= or endpoint=",
        ),
        ("NoSuchUpload" | "InvalidBlockList", _) => (
            Failed,
            "the parts that were sent have been removed meanwhile: start again",
        ),
        ("EntityTooLarge" | "QuotaExceeded" | "InsufficientStorage" | "RequestBodyTooLarge", _) => {
            (Failed, "there is no room for it")
        }
        (_, Some(401)) => (
            Denied,
            "credentials are needed, or these are not accepted: check the key, and the clock of this \
             machine",
        ),
        (_, Some(403)) => (Denied, needs(doing)),
        _ => (Failed, "the server will not"),
    }
}

const NO_STORAGE: &str =
    "that is no object storage: a proxy may stand in between, or the endpoint is wrong";

fn needs(doing: &str) -> &'static str {
    match doing {
        "list" => "the credentials lack the right to list the bucket",
        "write" => "the credentials lack the right to write: the bucket may be read-only for them",
        "remove" => "the credentials lack the right to delete",
        _ => "the credentials lack the right to read it",
    }
}

/// An error that is about no answer of the server.
fn without_answer(doing: &str, location: String, error: &Error) -> StoreError {
    let mut cause: &(dyn StdError + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    StoreError::Failed {
        location,
        reason: format!("cannot {doing} it: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> Trouble {
        Trouble::Refused {
            status,
            code: (!code.is_empty()).then(|| code.to_owned()),
            message: None,
        }
    }

    #[test]
    fn refusals_mean_the_same_in_the_words_of_every_cloud() {
        let table = [
            (
                "read",
                404,
                "NoSuchBucket",
                Outcome::Absent,
                "no such bucket",
            ),
            (
                "list",
                404,
                "ContainerNotFound",
                Outcome::Absent,
                "no such bucket",
            ),
            (
                "read",
                501,
                "NotSignedUp",
                Outcome::Denied,
                "access key is not known",
            ),
            (
                "list",
                403,
                "NotSignedUp",
                Outcome::Denied,
                "access key is not known",
            ),
            (
                "write",
                403,
                "AuthenticationFailed",
                Outcome::Denied,
                "not one of this account",
            ),
            (
                "write",
                403,
                "AuthorizationPermissionMismatch",
                Outcome::Denied,
                "right to write",
            ),
            (
                "list",
                403,
                "AccessDenied",
                Outcome::Denied,
                "right to list",
            ),
            (
                "read",
                401,
                "AuthenticationRequired",
                Outcome::Denied,
                "credentials are needed",
            ),
            ("read", 400, "", Outcome::Failed, "the server will not"),
        ];
        for (doing, status, code, outcome, words) in table {
            let (found, said) = meaning(doing, &refused(status, code));
            assert_eq!(found, outcome, "{code}");
            assert!(said.contains(words), "{code}: {said}");
        }
    }

    #[test]
    fn who_gives_credentials_may_have_too_much_to_do() {
        for code in [
            "Throttling",
            "RequestLimitExceeded",
            "IDPCommunicationError",
        ] {
            assert!(refused(400, code).may_pass(), "{code}");
        }
        let origin = "https://sts".to_owned();
        let trouble = Box::new(refused(400, "ExpiredTokenException"));
        let none = Trouble::NoCredentials { origin, trouble };
        assert!(!none.may_pass());
        assert_eq!(meaning("read", &none).0, Outcome::Denied);
    }

    #[test]
    fn a_code_of_the_head_counts_where_the_body_has_none() {
        let code = |trouble: Trouble| trouble.or_code(Some("ContainerNotFound")).code().to_owned();
        assert_eq!(code(refused(404, "")), "ContainerNotFound");
        assert_eq!(code(refused(404, "BlobNotFound")), "BlobNotFound");
    }
}
