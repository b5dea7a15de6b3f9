//! One direction of one connection: bytes in at one end, and out at the other when they are due.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::alarm::Alarm;
use super::line::Line;

/// Bytes read at once. Connections that share a line of limited bandwidth take turns by it.
const CHUNK: usize = 64 << 10;

/// Bytes that may be on their way in one direction of one connection: 64 MiB, which at a delay of
/// 10 ms is more than 6 GB/s. Beyond it the sender has to wait, as behind any full buffer.
const ON_THE_WAY: usize = 64 << 20;

/// Bytes and when they arrive; none at all are the end of the stream.
struct Parcel {
    due: Instant,
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Carries bytes until their end has been passed on; nothing leaves before `not_before`.
///
/// # Errors
/// Either side was cut off.
pub(super) async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    line: &Line,
    alarm: &Alarm,
    not_before: Instant,
) -> io::Result<()> {
    let (queue, queued) = mpsc::unbounded_channel();
    tokio::try_join!(
        take(from, line, alarm, not_before, queue),
        give(queued, to, alarm)
    )?;
    Ok(())
}

async fn take(
    mut from: ReadHalf<'_>,
    line: &Line,
    alarm: &Alarm,
    not_before: Instant,
    queue: mpsc::UnboundedSender<Parcel>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(ON_THE_WAY));
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let count = from.read_buf(&mut (&mut buffer).limit(CHUNK)).await?;
        let passage = line.send(count, Instant::now().max(not_before));
        alarm.at(passage.left).await;
        let parcel = Parcel {
            due: passage.due,
            bytes: buffer.split().freeze(),
            _room: reserve(&room, count).await,
        };
        // The queue is closed only when this direction has failed already.
        if queue.send(parcel).is_err() || count == 0 {
            return Ok(());
        }
    }
}

async fn reserve(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let permits = u32::try_from(bytes).expect("a chunk is small");
    Arc::clone(room).acquire_many_owned(permits).await.ok()
}

async fn give(
    mut queued: mpsc::UnboundedReceiver<Parcel>,
    mut to: WriteHalf<'_>,
    alarm: &Alarm,
) -> io::Result<()> {
    while let Some(parcel) = queued.recv().await {
        alarm.at(parcel.due).await;
        if parcel.bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&parcel.bytes).await?;
    }
    Ok(())
}
