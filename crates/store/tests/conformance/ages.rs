//! Ages: what is older than a moment is removed, and what was put again since is not.

use std::time::{Duration, SystemTime};

use farseek_object::{Digest, Header};
use farseek_store::{PutOptions, Repository, StoreError};

use super::Subject;
use super::objects::every_kind;
use super::payloads::body;

/// Longer than any test takes, and than clocks tick.
const HOUR: Duration = Duration::from_secs(3600);

fn long_ago() -> SystemTime {
    SystemTime::now() - HOUR
}

fn to_come() -> SystemTime {
    SystemTime::now() + HOUR
}

/// Everything, where ages are told.
pub(crate) async fn check(fresh: impl Fn() -> Subject) {
    objects_go_by_age(&*fresh().repository).await;
    let subject = fresh();
    let repository = &*subject.repository;
    let digest = Digest::of(b"old");
    let written = repository.payload_written(&digest).await;
    assert_eq!(written.expect("an answer"), None);
    assert!(!removed_payload(repository, &digest, to_come()).await);
    let put = repository.put_payload(body(b"old", 1), PutOptions::default());
    assert_eq!(put.await.expect("stored").0, digest);
    let written = repository.payload_written(&digest).await;
    is_now(written.expect("an answer").expect("a time"));
    assert!(!removed_payload(repository, &digest, long_ago()).await);
    let size = repository.payload_size(&digest).await;
    assert_eq!(size.expect("an answer"), Some(3));
    assert!(removed_payload(repository, &digest, to_come()).await);
    let size = repository.payload_size(&digest).await;
    assert_eq!(size.expect("an answer"), None);
    assert!(!removed_payload(repository, &digest, to_come()).await);
}

/// Nothing at all is told, or removed, and that is said.
pub(crate) async fn check_refusing(repository: &dyn Repository) {
    let digest = Digest::EMPTY;
    refused(repository.object_written(&digest).await.err());
    refused(repository.payload_written(&digest).await.err());
    nothing_goes_by_age(repository).await;
}

/// Nothing is removed, and that is said.
pub(crate) async fn nothing_goes_by_age(repository: &dyn Repository) {
    let digest = Digest::EMPTY;
    let removal = repository.remove_object_if_older_than(&digest, to_come());
    refused(removal.await.err());
    let removal = repository.remove_payload_if_older_than(&digest, to_come());
    refused(removal.await.err());
}

fn refused(error: Option<StoreError>) {
    let error = error.expect("that cannot be done");
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
}

fn is_now(written: SystemTime) {
    assert!(written > long_ago() && written < to_come(), "{written:?}");
}

async fn removed_object(repository: &dyn Repository, digest: &Digest, time: SystemTime) -> bool {
    let removal = repository.remove_object_if_older_than(digest, time);
    removal.await.expect("an answer")
}

async fn removed_payload(repository: &dyn Repository, digest: &Digest, time: SystemTime) -> bool {
    let removal = repository.remove_payload_if_older_than(digest, time);
    removal.await.expect("an answer")
}

async fn objects_go_by_age(repository: &dyn Repository) {
    for object in every_kind(Header::default()) {
        let digest = object.digest();
        let written = repository.object_written(&digest).await;
        assert_eq!(written.expect("an answer"), None);
        assert!(!removed_object(repository, &digest, to_come()).await);
        let put = repository.put_object(&object, PutOptions::default()).await;
        put.expect("stored");
        let written = repository.object_written(&digest).await;
        is_now(written.expect("an answer").expect("a time"));
        assert!(!removed_object(repository, &digest, long_ago()).await);
        assert!(repository.has_object(&digest).await.expect("an answer"));
        assert!(removed_object(repository, &digest, to_come()).await);
        assert!(!repository.has_object(&digest).await.expect("an answer"));
        assert!(!removed_object(repository, &digest, to_come()).await);
    }
}
