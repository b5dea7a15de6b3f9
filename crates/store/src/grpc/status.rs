//! What a failed call means: from gRPC's status, and from what broke below it, to our errors.

use std::error::Error as StdError;

use tonic::{Code, Status};

use super::calls::STORE_OBJECT;
use super::convert::shown;
use super::line::Stalled;
use crate::error::StoreError;

/// What tells that something else than HTTP/2 answered, as long as nothing was ever understood.
const NO_HTTP2: [&str; 2] = ["frame with invalid size", "unspecific protocol error"];

/// What tells that something else than gRPC answered, in HTTP/2.
const NO_GRPC: [&str; 2] = ["grpc-status header missing", "invalid compression flag"];

/// What a message that exceeds a limit is told by, on either side.
const TOO_LARGE: &str = "message length too large";

/// One call, as errors need to know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// What was asked, as a verb.
    pub(super) operation: &'static str,
    /// Of whom.
    pub(super) location: &'a str,
    /// Whether it has ever answered as a gRPC server does.
    pub(super) known: bool,
}

/// The error of a call that ended with `status`.
pub(super) fn failure(status: Status, call: Call<'_>) -> StoreError {
    let location = call.location.to_owned();
    let said = shown(status.message());
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted if said.contains(TOO_LARGE) => {
            too_large(&said, call)
        }
        _ if NO_GRPC.iter().any(|sign| said.contains(sign)) => no_grpc(call, &said),
        _ if status.source().is_some() => broken(&status, call),
        Code::Unimplemented => StoreError::Unsupported {
            operation: call.operation,
            location,
        },
        Code::Unauthenticated | Code::PermissionDenied => StoreError::Denied {
            location,
            reason: said,
        },
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted => StoreError::Unavailable {
            location,
            reason: format!("it answered '{said}'"),
            source: None,
        },
        _ => StoreError::Failed {
            location,
            reason: format!("it cannot {}: {said}", call.operation),
        },
    }
}

/// A call that failed below gRPC.
fn broken(status: &Status, call: Call<'_>) -> StoreError {
    let location = call.location.to_owned();
    let causes = causes(status);
    let root = causes.last().cloned().unwrap_or_default();
    let garbled = |text: &String| NO_HTTP2.iter().any(|sign| text.contains(sign));
    if !call.known && causes.iter().any(garbled) {
        return no_grpc(call, &root);
    }
    let reason = match stalled(status) {
        Some(stalled) => stalled,
        None if status.code() == Code::Unavailable => format!("cannot connect: {root}"),
        None if call.known => format!("the answer broke off: {root}"),
        None => format!(
            "it closed the connection ({root}) and has never answered yet: is it the port of a \
             gRPC server?"
        ),
    };
    StoreError::Unavailable {
        location,
        reason,
        // All that a person can use of it is in the reason.
        source: None,
    }
}

fn no_grpc(call: Call<'_>, said: &str) -> StoreError {
    StoreError::Failed {
        location: call.location.to_owned(),
        reason: format!(
            "what answers there is no gRPC server ({said}): is it the port of another service?"
        ),
    }
}

/// The two sides say the same, but only ours sends what is large unless an object is stored.
fn too_large(said: &str, call: Call<'_>) -> StoreError {
    let advice = match call.operation == STORE_OBJECT {
        true => "the server takes no larger ones, its own limit would have to be raised",
        false => "raise max_decode_message_size_bytes in the address to receive it",
    };
    StoreError::Failed {
        location: call.location.to_owned(),
        reason: format!("cannot {}: {said}; {advice}", call.operation),
    }
}

/// The error of a message of `bytes` that is not even sent, for it exceeds our own `limit`.
pub(super) fn too_large_to_send(bytes: usize, limit: usize, call: Call<'_>) -> StoreError {
    StoreError::Failed {
        location: call.location.to_owned(),
        reason: format!(
            "cannot {}: the message would have {bytes} bytes, the limit is {limit}; raise \
             max_encode_message_size_bytes in the address to send it",
            call.operation
        ),
    }
}

/// What every cause says, outermost first.
fn causes(status: &Status) -> Vec<String> {
    let mut texts = Vec::new();
    let mut cause = status.source();
    while let Some(error) = cause {
        texts.push(shown(&error.to_string()));
        cause = error.source();
    }
    texts
}

fn stalled(status: &Status) -> Option<String> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(stalled) = error.downcast_ref::<Stalled>() {
            return Some(stalled.to_string());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: Status, operation: &'static str) -> StoreError {
        let location = "grpc://h:1";
        failure(
            status,
            Call {
                operation,
                location,
                known: true,
            },
        )
    }

    #[test]
    fn what_a_server_answers() {
        let op = "read tags";
        let unimplemented = said(Status::unimplemented("x"), op);
        assert_eq!(unimplemented.to_string(), "grpc://h:1 cannot read tags");
        assert!(matches!(unimplemented, StoreError::Unsupported { .. }));
        for status in [
            Status::unauthenticated("who?"),
            Status::permission_denied("no"),
        ] {
            assert!(matches!(said(status, op), StoreError::Denied { .. }));
        }
        assert!(said(Status::unavailable("later"), op).is_transient());
        let failed = said(Status::internal("oh \u{7}no"), op).to_string();
        assert_eq!(failed, "grpc://h:1 failed: it cannot read tags: oh  no");
    }

    #[test]
    fn the_limit_to_raise_is_named() {
        let decoded =
            "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let ours = said(Status::out_of_range(decoded), "read objects").to_string();
        assert!(
            ours.contains("raise max_decode_message_size_bytes"),
            "{ours}"
        );
        let theirs = said(Status::out_of_range(decoded), STORE_OBJECT).to_string();
        assert!(theirs.contains("its own limit"), "{theirs}");
    }

    #[test]
    fn what_is_no_grpc_server() {
        let html = Status::unknown("grpc-status header missing, mapped from HTTP status code 200");
        let said = said(html, "read tags");
        assert!(said.to_string().contains("no gRPC server"), "{said}");
        assert!(!said.is_transient());
    }

    #[test]
    fn silence_is_told_by_its_length() {
        let stalled = Stalled(std::time::Duration::from_millis(1500));
        let error = said(Status::from_error(stalled.into()), "read tags");
        assert_eq!(
            error.to_string(),
            "grpc://h:1 cannot be reached: no answer for 1.5 s"
        );
        assert!(error.is_transient());
    }
}
