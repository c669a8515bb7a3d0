//! Kafka's framing over a byte stream: a big-endian i32 length, then that many bytes.
//!
//! Nothing here knows what a frame holds. Memory for a frame is reserved as its bytes arrive, so a hostile length costs
//! its sender as many bytes as it costs us. The stream is generic: TCP today, TLS over it in the same way.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What is read at a time when nothing is known about the next frame, and the least that is reserved.
const READ_BYTES: usize = 8 << 10;

/// The most that is reserved for a frame before its bytes arrive.
const RESERVE_BYTES: usize = 256 << 10;

/// How many chunks one write may gather.
const CHUNKS_PER_WRITE: usize = 64;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaFrameError {
    /// The length is negative.
    #[error("a frame announces the negative length {0}")]
    Negative(i32),
    /// The length is over the limit.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// The announced length.
        length: usize,
        /// The reader's limit.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the connection ended within a frame")]
    Cut,
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Splits a TCP connection into its two halves, for frames of at most `limit` bytes.
pub fn split(stream: TcpStream, limit: usize) -> (KafkaReader<OwnedReadHalf>, KafkaWriter<OwnedWriteHalf>) {
    let (read, write) = stream.into_split();
    (KafkaReader::new(read, limit), KafkaWriter::new(write))
}

/// Reads frames.
#[derive(Debug)]
pub struct KafkaReader<R> {
    stream: R,
    limit: usize,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> KafkaReader<R> {
    /// A reader of frames of at most `limit` bytes (Kafka's `socket.request.max.bytes`), the length not counted.
    pub fn new(stream: R, limit: usize) -> Self {
        Self {
            stream,
            limit,
            buffer: BytesMut::new(),
        }
    }

    /// Waits for the next frame to begin, and says how long it is; `None` at a clean end. What has arrived of it stays
    /// here, no more than one read takes unless the sender was faster, until [`Self::recv`]. Cancel-safe.
    pub async fn announced(&mut self) -> Result<Option<usize>, KafkaFrameError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                return self.checked(i32::from_be_bytes(*prefix)).map(Some);
            }
            self.reserve(4);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(KafkaFrameError::Cut)
                };
            }
        }
    }

    /// How much has arrived of the next frame and what follows it.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame without its length; `None` at a clean end. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, KafkaFrameError> {
        loop {
            let wanted = match self.buffer.first_chunk::<4>() {
                Some(prefix) => Some(4 + self.checked(i32::from_be_bytes(*prefix))?),
                None => None,
            };
            if let Some(wanted) = wanted
                && self.buffer.len() >= wanted
            {
                let mut frame = self.buffer.split_to(wanted).freeze();
                frame.advance(4);
                return Ok(Some(frame));
            }
            self.reserve(wanted.unwrap_or(4));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(KafkaFrameError::Cut)
                };
            }
        }
    }

    fn checked(&self, length: i32) -> Result<usize, KafkaFrameError> {
        let length = usize::try_from(length).map_err(|_| KafkaFrameError::Negative(length))?;
        if length > self.limit {
            return Err(KafkaFrameError::TooLong {
                length,
                limit: self.limit,
            });
        }
        Ok(length)
    }

    /// Makes room for the rest of a frame of `wanted` bytes, but for no more than has arrived, or a modest minimum.
    fn reserve(&mut self, wanted: usize) {
        let have = self.buffer.len();
        let rest = wanted - have;
        if self.buffer.capacity() - have < rest.min(READ_BYTES) {
            self.buffer
                .reserve(rest.max(READ_BYTES).min(RESERVE_BYTES.max(have)));
        }
    }
}

/// Writes frames, gathering chunks without copying them.
#[derive(Debug)]
pub struct KafkaWriter<W> {
    stream: W,
    pending: VecDeque<Bytes>,
}

impl<W: AsyncWrite + Unpin> KafkaWriter<W> {
    /// A writer onto `stream`.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            pending: VecDeque::new(),
        }
    }

    /// Queues a frame made of `chunks`; the length is put before it. [`Self::flush`] sends it. The caller bounds how much
    /// it queues. A frame too long for an i32 is refused.
    pub fn push(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let length = chunks.iter().map(Bytes::len).sum::<usize>();
        let prefix = i32::try_from(length)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is over 2 GiB"))?;
        self.pending
            .push_back(Bytes::copy_from_slice(&prefix.to_be_bytes()));
        self.pending
            .extend(chunks.into_iter().filter(|chunk| !chunk.is_empty()));
        Ok(())
    }

    /// Sends everything queued. Cancel-safe: what is left is sent by the next call.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.pending) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            let written = self.stream.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.consume(written);
        }
        self.stream.flush().await
    }

    /// Sends one frame, after whatever is queued.
    pub async fn send(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        self.push(chunks)?;
        self.flush().await
    }

    /// Sends what is queued and ends the sending direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }

    fn consume(&mut self, mut written: usize) {
        while let Some(chunk) = self.pending.front_mut() {
            if chunk.len() > written {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    async fn read_all(bytes: &[u8], limit: usize) -> Result<Vec<Bytes>, KafkaFrameError> {
        let mut reader = KafkaReader::new(bytes, limit);
        let mut frames = Vec::new();
        while let Some(frame) = reader.recv().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    async fn written(frames: &[Vec<Bytes>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = KafkaWriter::new(&mut out);
        for frame in frames {
            writer.push(frame.clone()).unwrap();
        }
        writer.flush().await.unwrap();
        out
    }

    #[tokio::test]
    async fn frames_come_back_as_they_were_sent() {
        let frames = [
            vec![Bytes::from_static(b"one")],
            vec![],
            (0..200u8).map(|i| Bytes::from(vec![i; usize::from(i)])).collect(),
            vec![Bytes::from(vec![5; 700_000]), Bytes::from_static(b"tail")],
        ];
        let read = read_all(&written(&frames).await, LIMIT).await.unwrap();
        let expected: Vec<Bytes> = frames.iter().map(|frame| Bytes::from(frame.concat())).collect();
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn a_slow_stream_and_tiny_writes_change_nothing() {
        let (near, far) = tokio::io::duplex(7);
        let body = Bytes::from((0..5_000u32).map(|i| i as u8).collect::<Vec<_>>());
        let chunks = vec![body.slice(..13), body.slice(13..2_000), body.slice(2_000..)];
        let sender = tokio::spawn(async move {
            let mut writer = KafkaWriter::new(near);
            writer.send(chunks.clone()).await.unwrap();
            writer.send(chunks).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut reader = KafkaReader::new(far, LIMIT);
        assert_eq!(reader.recv().await.unwrap(), Some(body.clone()));
        assert_eq!(reader.recv().await.unwrap(), Some(body));
        assert_eq!(reader.recv().await.unwrap(), None);
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn the_limit_itself_is_accepted_and_one_more_is_not() {
        let at = written(&[vec![Bytes::from(vec![1; 1_000])]]).await;
        assert_eq!(read_all(&at, 1_000).await.unwrap().len(), 1);
        assert!(matches!(
            read_all(&at, 999).await,
            Err(KafkaFrameError::TooLong {
                length: 1_000,
                limit: 999
            })
        ));
    }

    #[tokio::test]
    async fn broken_frames_are_errors() {
        let negative = [0xff, 0xff, 0xff, 0xff];
        assert!(matches!(
            read_all(&negative, LIMIT).await,
            Err(KafkaFrameError::Negative(-1))
        ));
        assert!(matches!(
            read_all(&[0, 0], LIMIT).await,
            Err(KafkaFrameError::Cut)
        ));
        assert!(matches!(
            read_all(&[0, 0, 0, 5, 1], LIMIT).await,
            Err(KafkaFrameError::Cut)
        ));
    }

    #[tokio::test]
    async fn a_frame_is_announced_before_it_is_read_and_read_as_a_whole() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = KafkaReader::new(far, 100);
        near.write_all(&[0, 0, 0, 3, b'a']).await.unwrap();
        assert_eq!(reader.announced().await.unwrap(), Some(3));
        assert_eq!(
            reader.announced().await.unwrap(),
            Some(3),
            "asking again changes nothing"
        );
        near.write_all(b"bc").await.unwrap();
        assert_eq!(reader.recv().await.unwrap().as_deref(), Some(&b"abc"[..]));
        near.write_all(&[0, 0, 0, 101]).await.unwrap();
        assert!(matches!(
            reader.announced().await,
            Err(KafkaFrameError::TooLong { length: 101, .. })
        ));
        let mut ended = KafkaReader::new(&[][..], 100);
        assert_eq!(ended.announced().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_announced_length_reserves_little() {
        let announced = (100_i32 << 20).to_be_bytes();
        let mut reader = KafkaReader::new(&announced[..], 100 << 20);
        assert!(reader.recv().await.is_err());
        assert!(reader.buffer.capacity() <= 2 * RESERVE_BYTES);
    }

    proptest::proptest! {
        #[test]
        fn any_frames_survive_any_cutting(
            frames in proptest::collection::vec(proptest::collection::vec(0..20_000usize, 0..5), 0..8),
            pipe in 1..5_000usize,
        ) {
            let chunk = |length: usize| Bytes::from(vec![length as u8; length]);
            let frames: Vec<Vec<Bytes>> =
                frames.into_iter().map(|lengths| lengths.into_iter().map(chunk).collect()).collect();
            let expected: Vec<Bytes> = frames.iter().map(|frame| Bytes::from(frame.concat())).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(async {
                let (near, far) = tokio::io::duplex(pipe);
                let write = async {
                    let mut writer = KafkaWriter::new(near);
                    for frame in frames {
                        writer.push(frame).unwrap();
                    }
                    writer.shutdown().await.unwrap();
                };
                let read = async {
                    let mut reader = KafkaReader::new(far, LIMIT);
                    let mut frames = Vec::new();
                    while let Some(frame) = reader.recv().await.unwrap() {
                        frames.push(frame);
                    }
                    frames
                };
                tokio::join!(write, read).1
            });
            proptest::prop_assert_eq!(read, expected);
        }
    }
}
