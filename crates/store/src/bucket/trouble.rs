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
        }
    }
}

impl StdError for Trouble {}

impl Trouble {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Page { status } => Some(*status),
            Self::Silent(_) | Self::Broken(_) => None,
        }
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
            Self::Refused { status, code, .. } => {
                let busy = ["SlowDown", "InternalError", "RequestTimeout", "ServerBusy"];
                matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
                    || code.as_deref().is_some_and(|code| busy.contains(&code))
            }
            Self::Page { status } => matches!(status, 429 | 500 | 502 | 503 | 504),
        }
    }
}

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

/// Whether the key, and nothing but the key, is not there.
pub(super) fn is_absent(error: &Error) -> bool {
    match trouble(error) {
        // To HEAD there is no code.
        Some(trouble @ Trouble::Refused { status: 404, .. }) => {
            let elsewhere = ["NoSuchBucket", "ContainerNotFound"];
            !elsewhere.contains(&trouble.code())
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
    let say = |what: &str| format!("cannot {doing} it: {what}: {trouble}");
    let denied = |location, what: &str| StoreError::Denied {
        location,
        reason: say(what),
    };
    let failed = |location, what: &str| StoreError::Failed {
        location,
        reason: say(what),
    };
    match (trouble.code(), trouble.status()) {
        _ if matches!(trouble, Trouble::Page { .. }) => failed(
            location,
            "that is no object storage: a proxy may stand in between, or the endpoint is wrong",
        ),
        ("NoSuchBucket" | "ContainerNotFound", _) => failed(
            location,
            "there is no such bucket: make it, or check its name, the endpoint and the region",
        ),
        ("InvalidAccessKeyId", _) => denied(
            location,
            "the access key is not known there: check the key and the endpoint",
        ),
        ("SignatureDoesNotMatch" | "InvalidSecurity", _) => denied(
            location,
            "the secret key is not the one of the access key, or something in between changes requests",
        ),
        ("ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException", _) => {
            denied(location, "the credentials have expired: get new ones")
        }
        ("InvalidToken" | "InvalidClientTokenId", _) => denied(
            location,
            "the session token is not valid: get new credentials",
        ),
        ("RequestTimeTooSkewed" | "RequestExpired", _) => denied(
            location,
            "the clock of this machine and the server's differ by too much: set the clock",
        ),
        (
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException",
            _,
        )
        | ("", Some(301 | 307)) => failed(
            location,
            "the bucket is in another region or behind another endpoint: give region= or endpoint=",
        ),
        ("NoSuchUpload", _) => failed(
            location,
            "the parts that were sent have been removed meanwhile: start again",
        ),
        ("EntityTooLarge" | "QuotaExceeded" | "InsufficientStorage", _) => {
            failed(location, "there is no room for it")
        }
        (_, Some(401)) => denied(
            location,
            "credentials are needed, or these are not accepted",
        ),
        (_, Some(403)) => denied(location, needs(doing)),
        _ => failed(location, "the server will not"),
    }
}

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
