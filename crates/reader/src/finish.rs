//! The end of a large payload: all of it is on the disk, so it is hashed, and promoted or
//! condemned. Once, whatever the number of handles, and behind the reads.
//!
//! It is hashed from its data file while nobody may write to that. What is renamed into the local
//! repository is the very file that was hashed; where another process has it open, or the
//! repository is on another file system, its blocks are copied instead, each checked against the
//! proof that the hash gave.

use std::sync::Arc;

use bytes::Bytes;
use farseek_object::{Blob, Digest, Header, Object};
use farseek_store::{Body, PutOptions, Repository, StoreError};
use futures::StreamExt;
use futures::stream;
use tokio::task::spawn_blocking;

use crate::background::Going;
use crate::disk::{DiskTier, Found, Sealed};
use crate::once::Turn;
use crate::options::Promote;
use crate::payload::PayloadState;
use crate::shared::Shared;
use crate::trust::{Proof, Prover, Provisional, Verify};

/// What hashing a payload's file gave.
enum Hashed {
    Right(Proof),
    Wrong(Digest),
    /// A block went while it was hashed, or the disk failed.
    Incomplete,
}

/// Starts it, unless it is under way or has been done.
pub(crate) fn start(shared: &Arc<Shared>, state: &Arc<PayloadState>) {
    if shared.options.verify == Verify::Off || state.layout.is_whole() {
        return;
    }
    let Some(turn) = state.finish.begin() else {
        return;
    };
    let (shared, state) = (Arc::clone(shared), Arc::clone(state));
    let runtime = shared.runtime.clone();
    let going = shared.background.begin();
    runtime.spawn(run(shared, state, turn, going));
}

async fn run(shared: Arc<Shared>, state: Arc<PayloadState>, mut turn: Turn, _going: Going) {
    let permits = Arc::clone(&shared.finishing);
    let _permit = permits.acquire_owned().await.expect("never closed");
    while !attempt(&shared, &state).await {
        match turn.again() {
            Some(again) => turn = again,
            None => return,
        }
    }
    turn.over();
}

/// Whether it is over, for better or worse.
async fn attempt(shared: &Arc<Shared>, state: &Arc<PayloadState>) -> bool {
    let Some(sealed) = seal(shared, state).await else {
        return false;
    };
    let digest = state.id.digest;
    let hashing = spawn_blocking(move || {
        let hashed = hash(&sealed, &digest);
        if matches!(hashed, Hashed::Right(_)) {
            sealed.mark();
        }
        (sealed, hashed)
    });
    match hashing.await {
        Err(_) | Ok((_, Hashed::Incomplete)) => false,
        Ok((sealed, Hashed::Wrong(actual))) => {
            condemn(shared, state, sealed, actual).await;
            true
        }
        Ok((sealed, Hashed::Right(proof))) => {
            state.prove(proof);
            promote(shared, state, sealed).await;
            true
        }
    }
}

async fn seal(shared: &Shared, state: &PayloadState) -> Option<Sealed> {
    let geometry = state.geometry();
    let disk = shared.disk_of(state)?;
    Shared::on_disk(disk, move |disk| disk.seal(geometry)).await?
}

fn hash(sealed: &Sealed, digest: &Digest) -> Hashed {
    let mut prover = Prover::default();
    for block in 0..sealed.geometry().blocks() {
        match sealed.read(block) {
            Ok(Found::Block(bytes)) => prover.add(&bytes),
            Ok(Found::Nothing | Found::Damaged) | Err(_) => return Hashed::Incomplete,
        }
    }
    match prover.finish(digest) {
        Ok(proof) => Hashed::Right(proof),
        Err(actual) => Hashed::Wrong(actual),
    }
}

async fn condemn(shared: &Arc<Shared>, state: &Arc<PayloadState>, sealed: Sealed, actual: Digest) {
    let path = sealed.data_path().display().to_string();
    let location = state.source().map_or(path, |source| source.to_string());
    let (shared, state) = (Arc::clone(shared), Arc::clone(state));
    let condemning = spawn_blocking(move || {
        shared.condemn(
            &state,
            &location,
            format!("its bytes have the digest {actual}"),
        );
        drop(sealed);
    });
    // An error would mean that the runtime ends: nobody reads any more.
    let _ = condemning.await;
}

/// Where it is to be made a payload, if that is wanted.
fn destination(shared: &Shared, state: &PayloadState) -> Option<Arc<dyn Repository>> {
    let wanted = match shared.options.promote {
        Promote::Complete => true,
        Promote::OnSeek => state.is_seeked(),
        Promote::Never => false,
    };
    shared.options.local.clone().filter(|_| wanted)
}

/// Starts it for a payload that an earlier process may have left complete and not been done with.
/// Blocks on the disk.
pub(crate) fn resume(shared: &Arc<Shared>, state: &Arc<PayloadState>, disk: &DiskTier) {
    let geometry = state.geometry();
    if state.layout.is_whole() || disk.present(geometry) < geometry.blocks() {
        return;
    }
    // Hashing reads all of it, which must not be the price of reading one block of it.
    if destination(shared, state).is_some() || !disk.is_marked(geometry) {
        start(shared, state);
    }
}

/// Makes it a payload of the local repository, if that is wanted.
async fn promote(shared: &Arc<Shared>, state: &Arc<PayloadState>, sealed: Sealed) {
    let Some(local) = destination(shared, state) else {
        return;
    };
    let sealed = Arc::new(sealed);
    let stored = store(&*local, state, &sealed).await;
    match stored {
        Ok(()) => {
            shared.counters.promotions.add(1);
            state.set_local(true);
            clear(shared, sealed).await;
        }
        Err(error) => shared.note_promotion_failure(state, &error),
    }
}

async fn store(
    local: &dyn Repository,
    state: &Arc<PayloadState>,
    sealed: &Arc<Sealed>,
) -> Result<(), StoreError> {
    let id = state.id;
    let _hold = local.hold().await?;
    let is_there = local.payload_size(&id.digest).await? == Some(id.size);
    if !is_there || !local.refresh_payload(&id.digest).await? {
        let adopted = match sealed.is_alone() {
            true => local.adopt_payload(&id.digest, sealed.data_path()).await,
            false => copy(local, state, sealed).await,
        };
        match adopted {
            Err(StoreError::Unsupported { .. }) => copy(local, state, sealed).await?,
            adopted => adopted?,
        }
    }
    let blob = blob(id.digest, id.size);
    local.put_object(&blob, PutOptions::default()).await?;
    Ok(())
}

/// The blob object of a payload.
pub(crate) fn blob(payload: Digest, size: u64) -> Object {
    let header = Header::default();
    Object::Blob(Blob {
        header,
        payload,
        size,
    })
}

async fn copy(
    local: &dyn Repository,
    state: &Arc<PayloadState>,
    sealed: &Arc<Sealed>,
) -> Result<(), StoreError> {
    let blocks = 0..sealed.geometry().blocks();
    let (state, sealed) = (Arc::clone(state), Arc::clone(sealed));
    let body: Body = stream::iter(blocks)
        .then(move |block| read_verified(Arc::clone(&state), Arc::clone(&sealed), block))
        .boxed();
    local.put_payload(body, PutOptions::default()).await?;
    Ok(())
}

/// A block of a sealed file that others may write to: only if it is still what was hashed.
async fn read_verified(
    state: Arc<PayloadState>,
    sealed: Arc<Sealed>,
    block: u64,
) -> Result<Bytes, StoreError> {
    let changed = StoreError::Corrupt {
        location: sealed.data_path().display().to_string(),
        reason: "it has changed since it was hashed".to_owned(),
    };
    let read = spawn_blocking(move || sealed.read(block)).await;
    let Ok(Ok(Found::Block(bytes))) = read else {
        return Err(changed);
    };
    let checked = state
        .proof()
        .map(|proof| proof.check(block, Provisional::new(bytes)));
    match checked {
        Some(Ok(verified)) => Ok(verified.into_bytes()),
        _ => Err(changed),
    }
}

/// Removes what is left in the disk tier: another process that has it open loses it, but finds
/// the payload in the local repository.
async fn clear(shared: &Arc<Shared>, sealed: Arc<Sealed>) {
    let (Some(disk), Some(sealed)) = (shared.disk.clone(), Arc::into_inner(sealed)) else {
        return;
    };
    Shared::on_disk(&disk, move |disk| disk.remove(sealed)).await;
}
