//! A payload's bytes as they arrive: counted, and never ended in silence.
//!
//! Invariant: the stream ends without an error only when exactly the announced bytes came, or,
//! where none were announced, when the server ended the answer in good order.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::client::{Opened, next_piece};
use crate::error::{Result, StoreError};

struct Reading {
    opened: Opened,
    expected: Option<u64>,
    received: u64,
    stall: Duration,
    done: bool,
}

/// The body of `opened`, which is to be `expected` bytes long where that is known.
pub(crate) fn counted(
    opened: Opened,
    expected: Option<u64>,
    stall: Duration,
) -> BoxStream<'static, Result<Bytes>> {
    let reading = Reading {
        opened,
        expected,
        received: 0,
        stall,
        done: false,
    };
    stream::unfold(reading, |mut reading| async move {
        if reading.done {
            return None;
        }
        let piece = reading.next().await.transpose()?;
        reading.done = piece.is_err();
        Some((piece, reading))
    })
    .boxed()
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let piece = next_piece(&mut self.opened.response, &self.opened.source, self.stall).await?;
        let Some(piece) = piece else {
            return self.end().map(|()| None);
        };
        self.received += piece.len() as u64;
        match self.expected {
            Some(expected) if self.received > expected => Err(StoreError::Corrupt {
                location: self.opened.source.clone(),
                reason: format!("it sends more than the {expected} bytes it announces"),
            }),
            _ => Ok(Some(piece)),
        }
    }

    fn end(&self) -> Result<()> {
        match self.expected {
            Some(expected) if self.received < expected => Err(StoreError::Unavailable {
                location: self.opened.source.clone(),
                reason: format!(
                    "the answer ended after {} of {expected} bytes",
                    self.received
                ),
                source: None,
            }),
            _ => Ok(()),
        }
    }
}
