//! One client's connection: reads request frames, has them answered, writes the answers in the order of the requests.
//!
//! Requests are handed to the broker one after the other, so that the records of a pipelining producer keep their order.
//! What an answer still has to wait for (copies, a fetch's records, a group's other members) it waits for beside the next
//! requests; answers leave in the order of the requests all the same. A second task reads ahead. Frames are bounded in
//! number per connection and in bytes over all connections, from before they are read. Nothing here knows what a frame
//! says.
//!
//! ```text
//! socket -> reader task -> queue (READ_AHEAD frames, Budget bytes) -> broker -> answers in order (PIPELINED) -> socket
//! ```

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tradewind_broker::Reply;
use tradewind_transport::kafka::{KafkaReader, KafkaWriter};
use tradewind_transport::{FrameRx, FrameTx};

use crate::metrics;

/// Answers requests of one connection.
pub(crate) trait Handler: Send {
    /// Begins one request. The next one comes after this has returned.
    fn handle(&mut self, frame: Bytes) -> impl Future<Output = Reply> + Send;
}

/// Where request frames come from. Both methods are cancel-safe.
pub(crate) trait Frames: Send + 'static {
    /// Waits for a frame to begin and says how long it is, before it is in memory; `None` at a clean end.
    fn announced(&mut self) -> impl Future<Output = Result<Option<usize>, String>> + Send;
    /// The frame that was announced.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
    /// How much of it has arrived: grows while its sender is alive.
    fn arrived(&self) -> usize;
}

/// Where response frames go.
pub(crate) trait Replies: Send {
    /// Sends one frame.
    fn reply(&mut self, frame: Vec<Bytes>) -> impl Future<Output = Result<(), String>> + Send;
}

/// What bounds a connection.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Closed after so long without a request.
    pub(crate) idle_timeout: Duration,
    /// Closed when nothing arrives for so long of a request that has begun.
    pub(crate) stall_timeout: Duration,
    /// Bytes of all requests that are read and not yet answered.
    pub(crate) budget: Budget,
}

/// Bytes that requests may hold, over all connections. One half is for requests of ordinary size, the other for large
/// ones: while a few of those come in slowly, everybody else's go on.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    ordinary: Half,
    large: Half,
}

#[derive(Debug, Clone)]
struct Half {
    units: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes / 2 / BUDGET_UNIT).unwrap_or(u32::MAX).max(1);
        let half = || Half {
            units: Arc::new(Semaphore::new(total as usize)),
            total,
        };
        Self {
            ordinary: half(),
            large: half(),
        }
    }

    /// Waits for room for one frame. A frame larger than its half takes all of it.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let half = if bytes > ORDINARY_BYTES {
            &self.large
        } else {
            &self.ordinary
        };
        let units = u32::try_from(bytes / BUDGET_UNIT + 1)
            .unwrap_or(u32::MAX)
            .min(half.total);
        Arc::clone(&half.units).acquire_many_owned(units).await.ok()
    }
}

/// Serves a connection until its client leaves, misbehaves or is idle, or until `drain`: then what has been read is
/// answered, and nothing more is read.
pub(crate) async fn serve(
    frames: impl Frames,
    mut replies: impl Replies,
    mut handler: impl Handler,
    limits: Limits,
    drain: CancellationToken,
) {
    let (queue, mut queued) = mpsc::channel(READ_AHEAD);
    let open = Arc::new(AtomicUsize::new(0));
    let reader = tokio::spawn(read(frames, queue, Arc::clone(&open), limits, drain));
    let mut waiting = FuturesOrdered::new();
    let mut reading = true;
    loop {
        let reply = tokio::select! {
            biased;
            Some(reply) = waiting.next(), if !waiting.is_empty() => reply,
            frame = queued.recv(), if reading && waiting.len() < PIPELINED => match frame {
                Some((frame, room)) => {
                    let handling = pin!(handler.handle(frame));
                    let Ok(reply) = answer_meanwhile(handling, &mut waiting, &mut replies, &open).await else {
                        break;
                    };
                    // A frame's bytes are spent once it is handled; an answer that waits holds none of them.
                    drop(room);
                    waiting.push_back(reply.settled());
                    continue;
                }
                None => {
                    reading = false;
                    continue;
                }
            },
            else => break,
        };
        open.fetch_sub(1, Ordering::Relaxed);
        if let Err(reason) = send(&mut replies, reply).await {
            tracing::debug!(reason, "closing a connection");
            break;
        }
    }
    reader.abort();
}

/// Waits for a request to be handled, and meanwhile sends the answers to earlier ones: a fetch may take its time.
async fn answer_meanwhile<F: Future<Output = Reply> + Send>(
    mut handling: Pin<&mut impl Future<Output = Reply>>,
    waiting: &mut FuturesOrdered<F>,
    replies: &mut impl Replies,
    open: &AtomicUsize,
) -> Result<Reply, ()> {
    loop {
        let earlier = tokio::select! {
            biased;
            reply = &mut handling => return Ok(reply),
            Some(earlier) = waiting.next(), if !waiting.is_empty() => earlier,
        };
        open.fetch_sub(1, Ordering::Relaxed);
        if let Err(reason) = send(replies, earlier).await {
            tracing::debug!(reason, "closing a connection");
            return Err(());
        }
    }
}

async fn send(replies: &mut impl Replies, reply: Reply) -> Result<(), String> {
    match reply {
        Reply::Frame(frame) => match timeout(WRITE_TIMEOUT, replies.reply(frame)).await {
            Ok(sent) => sent,
            Err(_) => Err("the client does not read its answers".to_owned()),
        },
        Reply::None => Ok(()),
        Reply::Close(reason) => {
            metrics::bad_frame();
            Err(reason)
        }
        // It was settled before.
        Reply::Later(_) => Ok(()),
    }
}

async fn read(
    mut frames: impl Frames,
    queue: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    open: Arc<AtomicUsize>,
    limits: Limits,
    drain: CancellationToken,
) {
    loop {
        let announced = tokio::select! {
            biased;
            () = drain.cancelled() => return,
            announced = timeout(limits.idle_timeout, frames.announced()) => announced,
        };
        let length = match announced {
            Ok(Ok(Some(length))) => length,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return refused(&error),
            // Whoever waits for an answer is not idle.
            Err(_) if open.load(Ordering::Relaxed) > 0 => continue,
            Err(_) => return,
        };
        // Before its bytes are in memory: else as many half-read frames as there are connections could be.
        let room = tokio::select! {
            biased;
            () = drain.cancelled() => return,
            room = limits.budget.take(length) => room,
        };
        let Some(room) = room else { return };
        let frame = tokio::select! {
            biased;
            () = drain.cancelled() => return,
            frame = whole(&mut frames, limits.stall_timeout) => frame,
        };
        match frame {
            Ok(Some(frame)) => {
                open.fetch_add(1, Ordering::Relaxed);
                if queue.send((frame, room)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return refused(&error),
        }
    }
}

/// The announced frame, unless nothing of it arrives for `stall`: it holds room that others may wait for.
async fn whole(frames: &mut impl Frames, stall: Duration) -> Result<Option<Bytes>, String> {
    loop {
        let arrived = frames.arrived();
        match timeout(stall, frames.next()).await {
            Ok(frame) => return frame,
            Err(_) if frames.arrived() > arrived => {}
            Err(_) => return Err("a frame stopped half-way".to_owned()),
        }
    }
}

fn refused(error: &str) {
    tracing::debug!(error, "closing a connection");
    metrics::bad_frame();
}

impl<R: AsyncRead + Unpin + Send + 'static> Frames for KafkaReader<R> {
    async fn announced(&mut self) -> Result<Option<usize>, String> {
        self.announced().await.map_err(|error| error.to_string())
    }

    fn arrived(&self) -> usize {
        self.buffered()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.recv().await.map_err(|error| error.to_string())
    }
}

impl<W: AsyncWrite + Unpin + Send> Replies for KafkaWriter<W> {
    async fn reply(&mut self, frame: Vec<Bytes>) -> Result<(), String> {
        self.send(frame).await.map_err(|error| error.to_string())
    }
}

impl Frames for FrameRx {
    async fn announced(&mut self) -> Result<Option<usize>, String> {
        self.announced().await.map_err(|error| error.to_string())
    }

    fn arrived(&self) -> usize {
        self.buffered()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.recv().await.map_err(|error| error.to_string())
    }
}

impl Replies for FrameTx {
    async fn reply(&mut self, frame: Vec<Bytes>) -> Result<(), String> {
        self.send(&frame).await.map_err(|error| error.to_string())
    }
}

/// A request that has begun and of which nothing more arrives for so long is given up.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Frames that are read while an earlier one is being answered.
const READ_AHEAD: usize = 16;
/// Requests of one connection whose answers are waited for at a time.
const PIPELINED: usize = 8;
/// Longer requests are large ones: more than a producer sends by default.
const ORDINARY_BYTES: usize = 2 << 20;
/// What the budget is counted in.
const BUDGET_UNIT: usize = 1 << 10;
/// A client that takes longer over one answer is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Answers with the frame it was sent; `quiet` gets no answer, `leave` closes, `wait` is answered after the signal.
    struct Echo(Arc<Semaphore>);

    impl Handler for Echo {
        async fn handle(&mut self, frame: Bytes) -> Reply {
            match &frame[..] {
                b"quiet" => Reply::None,
                b"leave" => Reply::Close("told to".to_owned()),
                b"wait" => {
                    let signal = Arc::clone(&self.0);
                    Reply::Later(Box::pin(async move {
                        signal.acquire().await.unwrap().forget();
                        Reply::Frame(vec![frame])
                    }))
                }
                b"release" => {
                    self.0.add_permits(1);
                    Reply::Frame(vec![frame])
                }
                _ => Reply::Frame(vec![frame]),
            }
        }
    }

    fn start(idle: Duration, drain: &CancellationToken) -> (DuplexStream, Arc<Semaphore>) {
        let (client, server) = duplex(1 << 20);
        let (read, write) = tokio::io::split(server);
        let signal = Arc::new(Semaphore::new(0));
        let limits = Limits {
            idle_timeout: idle,
            stall_timeout: idle,
            budget: Budget::new(1 << 20),
        };
        let (reader, writer) = (KafkaReader::new(read, 1_000), KafkaWriter::new(write));
        tokio::spawn(serve(
            reader,
            writer,
            Echo(Arc::clone(&signal)),
            limits,
            drain.clone(),
        ));
        (client, signal)
    }

    async fn write(client: &mut DuplexStream, frames: &[&str]) {
        for frame in frames {
            client.write_i32(frame.len() as i32).await.unwrap();
            client.write_all(frame.as_bytes()).await.unwrap();
        }
    }

    async fn read(client: &mut DuplexStream) -> Option<String> {
        let length = client.read_i32().await.ok()?;
        let mut frame = vec![0; length as usize];
        client.read_exact(&mut frame).await.unwrap();
        Some(String::from_utf8(frame).unwrap())
    }

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_requests_and_quiet_ones_have_none() {
        let (mut client, signal) = start(LONG, &CancellationToken::new());
        write(&mut client, &["wait", "a", "quiet", "b"]).await;
        signal.add_permits(1);
        for expect in ["wait", "a", "b"] {
            assert_eq!(read(&mut client).await.as_deref(), Some(expect));
        }
    }

    #[tokio::test]
    async fn an_answer_that_waits_does_not_hold_up_the_next_request_but_its_answer() {
        let (mut client, _signal) = start(LONG, &CancellationToken::new());
        // `release` could never be answered if it were not begun while `wait` waits.
        write(&mut client, &["wait", "release"]).await;
        assert_eq!(read(&mut client).await.as_deref(), Some("wait"));
        assert_eq!(read(&mut client).await.as_deref(), Some("release"));
    }

    #[tokio::test]
    async fn what_was_sent_before_the_client_closed_its_side_is_still_answered() {
        let (mut client, _signal) = start(LONG, &CancellationToken::new());
        write(&mut client, &["a", "b"]).await;
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut client).await.as_deref(), Some("a"));
        assert_eq!(read(&mut client).await.as_deref(), Some("b"));
        assert_eq!(read(&mut client).await, None);
    }

    #[tokio::test]
    async fn a_frame_that_cannot_be_answered_and_one_that_is_too_long_close_the_connection() {
        let (mut client, _signal) = start(LONG, &CancellationToken::new());
        write(&mut client, &["a", "leave", "b"]).await;
        assert_eq!(read(&mut client).await.as_deref(), Some("a"));
        assert_eq!(read(&mut client).await, None);

        let (mut client, _signal) = start(LONG, &CancellationToken::new());
        client.write_i32(1_001).await.unwrap();
        assert_eq!(read(&mut client).await, None);
    }

    #[tokio::test]
    async fn a_drain_answers_what_was_read_and_then_closes() {
        let drain = CancellationToken::new();
        let (mut client, signal) = start(LONG, &drain);
        write(&mut client, &["first", "wait"]).await;
        assert_eq!(read(&mut client).await.as_deref(), Some("first"));
        // The reader has `wait` before the drain: it is in the same burst that answered `first`, or the queue is open.
        tokio::task::yield_now().await;
        drain.cancel();
        signal.add_permits(1);
        let last = read(&mut client).await;
        assert!(last.is_none() || last.as_deref() == Some("wait"), "{last:?}");
        assert_eq!(read(&mut client).await, None);
    }

    #[tokio::test]
    async fn a_frame_waits_for_room_before_it_is_read_and_gives_it_back_when_it_is_handled() {
        let budget = Budget::new(2 * BUDGET_UNIT);
        let limits = Limits {
            idle_timeout: LONG,
            stall_timeout: LONG,
            budget: budget.clone(),
        };
        let (mut client, server) = duplex(1 << 20);
        let (read_half, write_half) = tokio::io::split(server);
        let (reader, writer) = (KafkaReader::new(read_half, 1_000), KafkaWriter::new(write_half));
        let echo = Echo(Arc::new(Semaphore::new(0)));
        tokio::spawn(serve(reader, writer, echo, limits, CancellationToken::new()));
        // Another connection has begun a request and not finished it.
        let elsewhere = budget.take(1).await.unwrap();
        write(&mut client, &["a", "b"]).await;
        let early = timeout(Duration::from_millis(50), read(&mut client)).await;
        assert!(early.is_err(), "there is no room to read it into");
        assert!(
            budget.take(ORDINARY_BYTES + 1).await.is_some(),
            "large ones have room of their own"
        );
        drop(elsewhere);
        assert_eq!(read(&mut client).await.as_deref(), Some("a"));
        assert_eq!(read(&mut client).await.as_deref(), Some("b"));
        assert_eq!(budget.ordinary.units.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_request_that_stops_half_way_is_given_up_with_its_room() {
        let (client, server) = duplex(1 << 20);
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (read_half, write_half) = tokio::io::split(server);
        let budget = Budget::new(1 << 20);
        let limits = Limits {
            idle_timeout: LONG,
            stall_timeout: Duration::from_millis(20),
            budget: budget.clone(),
        };
        let (reader, writer) = (KafkaReader::new(read_half, 1_000), KafkaWriter::new(write_half));
        let echo = Echo(Arc::new(Semaphore::new(0)));
        tokio::spawn(serve(reader, writer, echo, limits, CancellationToken::new()));
        client_write
            .write_all(&[0, 0, 0, 9, b'h', b'a', b'l', b'f'])
            .await
            .unwrap();
        let mut nothing = [0; 1];
        assert_eq!(client_read.read(&mut nothing).await.unwrap(), 0, "closed");
        assert_eq!(
            budget.ordinary.units.available_permits(),
            budget.ordinary.total as usize
        );
    }

    #[tokio::test]
    async fn a_request_that_takes_its_time_does_not_hold_up_the_answers_before_it() {
        struct Slow(Arc<Semaphore>);
        impl Handler for Slow {
            async fn handle(&mut self, frame: Bytes) -> Reply {
                if &frame[..] == b"slow" {
                    self.0.acquire().await.unwrap().forget();
                    return Reply::Frame(vec![frame]);
                }
                // Ready only after the next request has begun.
                Reply::Later(Box::pin(async move {
                    tokio::task::yield_now().await;
                    Reply::Frame(vec![frame])
                }))
            }
        }
        let (mut client, server) = duplex(1 << 20);
        let (read_half, write_half) = tokio::io::split(server);
        let signal = Arc::new(Semaphore::new(0));
        let limits = Limits {
            idle_timeout: LONG,
            stall_timeout: LONG,
            budget: Budget::new(1 << 20),
        };
        let (reader, writer) = (KafkaReader::new(read_half, 1_000), KafkaWriter::new(write_half));
        let slow = Slow(Arc::clone(&signal));
        tokio::spawn(serve(reader, writer, slow, limits, CancellationToken::new()));
        write(&mut client, &["first", "slow"]).await;
        assert_eq!(
            read(&mut client).await.as_deref(),
            Some("first"),
            "while `slow` is being handled"
        );
        signal.add_permits(1);
        assert_eq!(read(&mut client).await.as_deref(), Some("slow"));
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_but_not_one_that_waits_for_its_answer() {
        const IDLE: Duration = Duration::from_millis(20);
        let (mut client, signal) = start(IDLE, &CancellationToken::new());
        write(&mut client, &["wait"]).await;
        // Nothing is waited for: more time is to pass than an idle connection has.
        tokio::time::sleep(5 * IDLE).await;
        signal.add_permits(1);
        assert_eq!(read(&mut client).await.as_deref(), Some("wait"));
        assert_eq!(read(&mut client).await, None);
    }
}
