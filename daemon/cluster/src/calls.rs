//! Small named calls between daemons of one cluster: one request frame, one answer frame, one stream each.
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

/// How long a caller's request may take to arrive, and a handler to answer.
const SERVE_TIMEOUT: Duration = Duration::from_secs(30);

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
        let serving = async {
            let Ok(Some(mut frame)) = rx.recv().await else {
                return;
            };
            let Some(name) = take_name(&mut frame) else { return };
            let (ok, payload) = match self.answer(&name, frame).await {
                Ok(payload) => (1u8, payload),
                Err(reason) => (0u8, Bytes::from(reason)),
            };
            let _ = tx.send(&[Bytes::copy_from_slice(&[ok]), payload]).await;
            tx.finish();
            // The caller ends the stream once it has the answer.
            let _ = rx.recv().await;
        };
        let _ = tokio::time::timeout(SERVE_TIMEOUT, serving).await;
    }
}

/// Makes one call over a fresh stream.
pub(crate) async fn call(
    mut tx: FrameTx,
    mut rx: FrameRx,
    name: &str,
    payload: Bytes,
) -> Result<Bytes, String> {
    let mut head = BytesMut::with_capacity(2 + name.len());
    head.put_u16(u16::try_from(name.len()).map_err(|_| "call name too long".to_owned())?);
    head.put_slice(name.as_bytes());
    tx.send(&[head.freeze(), payload])
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

fn take_name(frame: &mut Bytes) -> Option<String> {
    let len = usize::from(frame.try_get_u16().ok()?);
    if frame.len() < len {
        return None;
    }
    String::from_utf8(frame.split_to(len).to_vec()).ok()
}
