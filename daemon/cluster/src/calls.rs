//! Small named calls between daemons of one cluster: one request frame, one answer frame, one stream each.
//!
//! A request is a u16 length, that name, a u32 of how long the caller waits in ms, and the payload.
//!
//! For what a person asked one daemon and several know: the state of a flow, say. Nothing that records depend on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tradewind_transport::{FrameRx, FrameTx};
use tradewind_wire::ids::NodeId;

/// How long a caller's request may take to arrive, and its answer to be taken.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a handler may take, at most, whatever the caller says.
const SERVE_TIMEOUT: Duration = Duration::from_secs(1_200);

/// Why another daemon did not answer a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("call to node {node}: {reason}")]
pub struct CallError {
    /// Who was asked.
    pub node: NodeId,
    /// What went wrong.
    pub reason: String,
}

/// Answers calls of one name. The error goes to the caller as text.
pub type CallHandler = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// The calls that this daemon answers.
#[derive(Default)]
pub(crate) struct Calls {
    handlers: RwLock<HashMap<String, CallHandler>>,
}

impl Calls {
    pub(crate) fn register(&self, name: &str, handler: CallHandler) {
        self.handlers.write().insert(name.to_owned(), handler);
    }

    /// Answers a call without a network.
    pub(crate) async fn answer(&self, name: &str, payload: Bytes) -> Result<Bytes, String> {
        let handler = self.handlers.read().get(name).cloned();
        match handler {
            Some(handler) => handler(payload).await,
            None => Err(format!("no call named `{name}`")),
        }
    }

    /// Answers the one call of an accepted stream.
    pub(crate) async fn serve(&self, mut tx: FrameTx, mut rx: FrameRx) {
        let Ok(Ok(Some(mut frame))) = tokio::time::timeout(FRAME_TIMEOUT, rx.recv()).await else {
            return;
        };
        let Some((name, waits)) = take_head(&mut frame) else {
            return;
        };
        let answering = tokio::time::timeout(waits.min(SERVE_TIMEOUT), self.answer(&name, frame));
        let Ok(answer) = answering.await else { return };
        let (ok, payload) = match answer {
            Ok(payload) => (1u8, payload),
            Err(reason) => (0u8, Bytes::from(reason)),
        };
        let telling = async {
            let _ = tx.send(&[Bytes::copy_from_slice(&[ok]), payload]).await;
            tx.finish();
            // The caller ends the stream once it has the answer.
            let _ = rx.recv().await;
        };
        let _ = tokio::time::timeout(FRAME_TIMEOUT, telling).await;
    }
}

/// Makes one call over a fresh stream, for which the caller waits so long.
pub(crate) async fn call(
    mut tx: FrameTx,
    mut rx: FrameRx,
    name: &str,
    payload: Bytes,
    waits: Duration,
) -> Result<Bytes, String> {
    tx.send(&[head(name, waits)?, payload])
        .await
        .map_err(|error| error.to_string())?;
    let frame = rx.recv().await.map_err(|error| error.to_string())?;
    let mut frame = frame.ok_or_else(|| "stream ended before the answer".to_owned())?;
    match frame.try_get_u8() {
        Ok(1) => Ok(frame),
        Ok(_) => Err(String::from_utf8_lossy(&frame).into_owned()),
        Err(_) => Err("empty answer".to_owned()),
    }
}

fn head(name: &str, waits: Duration) -> Result<Bytes, String> {
    let mut head = BytesMut::with_capacity(6 + name.len());
    head.put_u16(u16::try_from(name.len()).map_err(|_| "call name too long".to_owned())?);
    head.put_slice(name.as_bytes());
    head.put_u32(u32::try_from(waits.as_millis()).unwrap_or(u32::MAX));
    Ok(head.freeze())
}

fn take_head(frame: &mut Bytes) -> Option<(String, Duration)> {
    let len = usize::from(frame.try_get_u16().ok()?);
    if frame.len() < len {
        return None;
    }
    let name = String::from_utf8(frame.split_to(len).to_vec()).ok()?;
    let waits = frame.try_get_u32().ok()?;
    Some((name, Duration::from_millis(u64::from(waits))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_its_caller_waits() {
        let ten_minutes = Duration::from_secs(600);
        let mut frame = BytesMut::from(&head("mirror", ten_minutes).unwrap()[..]);
        frame.put_slice(b"payload");
        let mut frame = frame.freeze();
        assert_eq!(take_head(&mut frame), Some(("mirror".to_owned(), ten_minutes)));
        assert_eq!(&frame[..], b"payload");
        for cut in 0..12 {
            let mut head = head("mirror", ten_minutes).unwrap().slice(..cut);
            assert_eq!(take_head(&mut head), None);
        }
    }
}
