//! Frames on a QUIC stream: a big-endian u32 length, then that many bytes. Kafka's own framing, so that a stream can
//! carry Kafka's frames unchanged.
//!
//! Sending hands chunks to QUIC without copying them, apart from small ones, which travel together. Receiving copies each
//! byte once, out of the datagrams into the frame, and reserves memory as bytes arrive, never because a length says so.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::conn::ConnLost;

/// The longest frame that is sent or received, as Kafka's `socket.request.max.bytes`.
pub const MAX_FRAME_BYTES: usize = 100 << 20;

/// Parts of at most this many bytes are copied together; longer ones are handed over as they are.
const COALESCE_BYTES: usize = 1 << 10;

/// The most that is reserved for a frame before its bytes arrive.
const RESERVE_BYTES: usize = 1 << 20;

/// How many chunks are taken from a stream at a time.
const CHUNKS_PER_READ: usize = 32;

/// What a stream is reset with when its owner gives it up.
const ABANDONED: VarInt = VarInt::from_u32(1);

/// Why a frame could not be sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The frame is longer than [`MAX_FRAME_BYTES`]; nothing was sent.
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLong(usize),
    /// The peer does not read this stream any more.
    #[error("the peer stopped the stream (code {0})")]
    Stopped(u64),
    /// The stream was finished or reset here, or an earlier send was abandoned half-way.
    #[error("the stream is closed")]
    Closed,
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] ConnLost),
}

/// Why no frame could be received.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer announced a frame over this receiver's limit.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// The announced length.
        length: usize,
        /// The receiver's limit.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
    /// The peer reset the stream.
    #[error("the peer reset the stream (code {0})")]
    Reset(u64),
    /// The stream was stopped here.
    #[error("the stream is closed")]
    Closed,
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] ConnLost),
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct FrameTx {
    stream: SendStream,
    midway: bool,
}

impl FrameTx {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            midway: false,
        }
    }

    /// Sends one frame made of `parts`. Waits while the peer's window or the send window is full.
    ///
    /// Not cancel-safe: if the future is dropped half-way, the stream is of no more use and later sends fail.
    pub async fn send(&mut self, parts: &[Bytes]) -> Result<(), SendError> {
        let length = parts.iter().map(Bytes::len).sum::<usize>();
        let prefix = match u32::try_from(length) {
            Ok(prefix) if length <= MAX_FRAME_BYTES => prefix,
            _ => return Err(SendError::TooLong(length)),
        };
        if self.midway {
            return Err(SendError::Closed);
        }
        let mut chunks = chunks(prefix, parts);
        self.midway = true;
        self.stream
            .write_all_chunks(&mut chunks)
            .await
            .map_err(send_error)?;
        self.midway = false;
        Ok(())
    }

    /// Says that no frame follows. What was sent still arrives.
    pub fn finish(&mut self) {
        // Fails only if the stream is closed already.
        let _ = self.stream.finish();
    }

    /// Gives the stream up: what has not arrived may never arrive, and the peer sees a reset.
    pub fn reset(&mut self) {
        let _ = self.stream.reset(ABANDONED);
    }

    /// Sets how urgent this stream is among those of its connection; higher goes first, 0 is the default.
    pub fn set_priority(&self, priority: i32) {
        let _ = self.stream.set_priority(priority);
    }

    /// Waits until the peer has everything that was sent on the finished stream, or does not want it any more.
    pub async fn closed(&mut self) {
        let _ = self.stream.stopped().await;
    }
}

impl Drop for FrameTx {
    /// A frame that was cut short must not look like a clean end.
    fn drop(&mut self) {
        if self.midway {
            self.reset();
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct FrameRx {
    stream: RecvStream,
    limit: usize,
    /// Received and not yet used, in order.
    pending: std::collections::VecDeque<Bytes>,
    /// Length prefix bytes so far.
    prefix: ([u8; 4], usize),
    /// The frame under construction and its length.
    frame: Option<(BytesMut, usize)>,
}

impl FrameRx {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            limit: MAX_FRAME_BYTES,
            pending: std::collections::VecDeque::new(),
            prefix: ([0; 4], 0),
            frame: None,
        }
    }

    /// Sets the longest frame that this receiver takes, at most [`MAX_FRAME_BYTES`]: a small one until the peer's
    /// authority is known.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_FRAME_BYTES);
    }

    /// Waits for the next frame to begin, and says how long it is; `None` when the peer has finished the stream.
    /// Cancel-safe. [`Self::recv`] returns the frame.
    pub async fn announced(&mut self) -> Result<Option<usize>, FrameError> {
        loop {
            self.begin()?;
            if let Some((_, length)) = &self.frame {
                return Ok(Some(*length));
            }
            if !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// How much has arrived of the frame that is being received.
    pub fn buffered(&self) -> usize {
        let pending: usize = self.pending.iter().map(Bytes::len).sum();
        pending + self.frame.as_ref().map_or(0, |(frame, _)| frame.len())
    }

    /// The next frame; `None` when the peer has finished the stream. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.assemble()? {
                return Ok(Some(frame));
            }
            if !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more bytes; false if the peer has finished the stream between two frames.
    async fn receive(&mut self) -> Result<bool, FrameError> {
        let mut chunks: [Bytes; CHUNKS_PER_READ] = Default::default();
        match self.stream.read_chunks(&mut chunks).await.map_err(recv_error)? {
            Some(count) => {
                self.pending.extend(chunks.into_iter().take(count));
                Ok(true)
            }
            None if self.prefix.1 == 0 && self.frame.is_none() => Ok(false),
            None => Err(FrameError::Cut),
        }
    }

    /// Tells the peer that nothing more is read.
    pub fn stop(&mut self) {
        let _ = self.stream.stop(ABANDONED);
    }

    /// Moves pending bytes into the prefix until a frame is under construction.
    fn begin(&mut self) -> Result<(), FrameError> {
        while self.frame.is_none()
            && let Some(chunk) = self.pending.front_mut()
        {
            let (bytes, have) = &mut self.prefix;
            let take = (bytes.len() - *have).min(chunk.len());
            chunk.copy_to_slice(&mut bytes[*have..*have + take]);
            *have += take;
            if chunk.is_empty() {
                self.pending.pop_front();
            }
            if *have == bytes.len() {
                let length = u32::from_be_bytes(*bytes) as usize;
                if length > self.limit {
                    return Err(FrameError::TooLong {
                        length,
                        limit: self.limit,
                    });
                }
                self.prefix.1 = 0;
                self.frame = Some((BytesMut::new(), length));
            }
        }
        Ok(())
    }

    /// Moves pending bytes into the frame under construction; returns it once it is whole.
    fn assemble(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.begin()?;
        let Some((frame, length)) = &mut self.frame else {
            return Ok(None);
        };
        while frame.len() < *length
            && let Some(chunk) = self.pending.front_mut()
        {
            let take = (*length - frame.len()).min(chunk.len());
            reserve(frame, *length, take);
            frame.extend_from_slice(&chunk.split_to(take));
            if chunk.is_empty() {
                self.pending.pop_front();
            }
        }
        let whole = self.frame.take_if(|(frame, length)| frame.len() == *length);
        Ok(whole.map(|(frame, _)| frame.freeze()))
    }
}

/// Makes room for `take` more bytes: the whole rest of the frame if that is modest, else twice what has arrived.
fn reserve(frame: &mut BytesMut, length: usize, take: usize) {
    if frame.capacity() - frame.len() < take {
        let rest = length - frame.len();
        frame.reserve(rest.min(RESERVE_BYTES.max(frame.len())).max(take));
    }
}

/// The frame as chunks for the stream: prefix and short parts copied together, long parts as they are.
fn chunks(prefix: u32, parts: &[Bytes]) -> Vec<Bytes> {
    let mut chunks = Vec::with_capacity(parts.len() + 1);
    let mut small = BytesMut::with_capacity(64);
    small.extend_from_slice(&prefix.to_be_bytes());
    for part in parts {
        if part.len() <= COALESCE_BYTES {
            small.extend_from_slice(part);
        } else {
            if !small.is_empty() {
                chunks.push(small.split().freeze());
            }
            chunks.push(part.clone());
        }
    }
    if !small.is_empty() {
        chunks.push(small.freeze());
    }
    chunks
}

fn send_error(error: WriteError) -> SendError {
    match error {
        WriteError::Stopped(code) => SendError::Stopped(code.into_inner()),
        WriteError::ConnectionLost(reason) => SendError::Lost(ConnLost::from_quinn(&reason)),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => SendError::Closed,
    }
}

fn recv_error(error: ReadError) -> FrameError {
    match error {
        ReadError::Reset(code) => FrameError::Reset(code.into_inner()),
        ReadError::ConnectionLost(reason) => FrameError::Lost(ConnLost::from_quinn(&reason)),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            FrameError::Closed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_travel_together_and_large_ones_untouched() {
        let large = Bytes::from(vec![7; 10_000]);
        let parts = [
            Bytes::from_static(b"ab"),
            Bytes::new(),
            large.clone(),
            Bytes::from_static(b"c"),
        ];
        let chunks = chunks(10_003, &parts);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[0], Bytes::from_static(b"\0\0\x27\x13ab"));
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(chunks[2], Bytes::from_static(b"c"));
    }

    #[test]
    fn an_announced_length_reserves_little() {
        let mut frame = BytesMut::new();
        reserve(&mut frame, MAX_FRAME_BYTES, 100);
        assert!(frame.capacity() <= 2 * RESERVE_BYTES);
    }
}
