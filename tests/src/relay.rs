//! A long, bad line between two processes: a relay on loopback with delay, jitter, loss, reordering, a bandwidth and cuts.
//!
//! For UDP every datagram has a fate of its own. For TCP the bytes stay in order, as they do for those who use it: a loss is
//! a pause of a retransmission for everything behind it, and reordering is nothing that could be seen. What happens to the
//! n-th datagram of a direction follows from the seed; when it comes is the processes' own affair. A cut holds nothing back
//! for later: datagrams are lost, and the bytes of a TCP connection wait at their sender.
//!
//! ```text
//! client ── Relay (addr) ──> server        one upstream socket per client, so that answers find their way
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// How long a router's queue gets, in time, before it drops what comes.
const QUEUE: Duration = Duration::from_millis(200);
/// What a lost segment costs a TCP connection on top of a round trip.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Chunks of a TCP connection that are under way at once.
const CHUNKS: usize = 4_096;
/// Bytes of one chunk, at most.
const CHUNK: usize = 16 * 1024;
/// The largest datagram that Ethernet carries; larger ones find no way, as on any long line.
const ETHERNET: usize = 1_472;
/// What the kernel keeps for a socket of the relay: a sender's burst is not to be lost here.
const SOCKET_BUFFER: usize = 4 << 20;

/// What a line is like, in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// One way; the round trip is twice that.
    pub delay: Duration,
    /// Up to so much more, evenly spread. More than the gap between two datagrams reorders them.
    pub jitter: Duration,
    /// The share of datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// The share of datagrams that overtake those before them: they are not delayed.
    pub reordering: f64,
    /// At most so many bytes in a second; what exceeds a queue of 200 ms is lost (UDP) or waits (TCP).
    pub bytes_per_second: Option<u64>,
}

impl Line {
    /// A line that only takes time: half of `rtt` each way.
    pub fn of_rtt(rtt: Duration) -> Self {
        Self {
            delay: rtt / 2,
            jitter: Duration::ZERO,
            loss: 0.0,
            reordering: 0.0,
            bytes_per_second: None,
        }
    }
}

/// A relay. It ends with this value.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    line: std::sync::Mutex<Line>,
    cut: AtomicBool,
    healed: Notify,
    ended: Notify,
    forwarded: AtomicU64,
    lost: AtomicU64,
    seed: u64,
}

impl Relay {
    /// Relays datagrams to `to`.
    pub fn udp(to: SocketAddr, line: Line, seed: u64) -> Result<Self> {
        let socket = udp_socket().context("a relay's socket")?;
        let addr = socket.local_addr()?;
        Self::start(addr, to, line, seed, move |shared| async move {
            udp(UdpSocket::from_std(socket)?, None, shared).await
        })
    }

    /// As [`Self::udp`], but the line lies only before `far`: what others send passes at once, through cuts too. For a daemon
    /// that is reached at one address by those beside it and by those far away.
    pub fn udp_before(to: SocketAddr, far: Vec<SocketAddr>, line: Line, seed: u64) -> Result<Self> {
        let socket = udp_socket().context("a relay's socket")?;
        let addr = socket.local_addr()?;
        Self::start(addr, to, line, seed, move |shared| async move {
            udp(UdpSocket::from_std(socket)?, Some(far), shared).await
        })
    }

    /// Relays connections to `to`.
    pub fn tcp(to: SocketAddr, line: Line, seed: u64) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a relay's listener")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Self::start(addr, to, line, seed, move |shared| async move {
            tcp(TcpListener::from_std(listener)?, shared).await
        })
    }

    fn start<F>(
        addr: SocketAddr,
        to: SocketAddr,
        line: Line,
        seed: u64,
        run: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            to,
            line: std::sync::Mutex::new(line),
            cut: AtomicBool::new(false),
            healed: Notify::new(),
            ended: Notify::new(),
            forwarded: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            seed,
        });
        let running = run(Arc::clone(&shared));
        runtime.spawn(async move {
            if let Err(error) = running.await {
                eprintln!("the relay has ended: {error}");
            }
        });
        Ok(Self {
            addr,
            shared,
            runtime: Some(runtime),
        })
    }

    /// Where to connect to instead.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What comes from now on finds this line.
    pub fn set(&self, line: Line) {
        if let Ok(mut now) = self.shared.line.lock() {
            *now = line;
        }
    }

    /// Nothing gets through any more, in either direction.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Release);
    }

    /// The line is whole again.
    pub fn heal(&self) {
        self.shared.cut.store(false, Ordering::Release);
        self.shared.healed.notify_waiters();
    }

    /// Datagrams or chunks that got through, and those that were lost (or, of a connection, came late for a loss).
    pub fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.shared.forwarded), read(&self.shared.lost))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.notify_waiters();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn line(&self) -> Line {
        self.line
            .lock()
            .map_or_else(|_| Line::of_rtt(Duration::ZERO), |line| *line)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Returns at once unless the line is cut; then when it is whole again.
    async fn whole(&self) {
        loop {
            // Before it looks: a line that is healed in between is not missed.
            let healed = self.healed.notified();
            if !self.is_cut() {
                return;
            }
            healed.await;
        }
    }

    fn count(&self, lost: bool) {
        let count = if lost { &self.lost } else { &self.forwarded };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// One direction of one client's traffic.
struct Way {
    rng: StdRng,
    /// When the line has sent all that it took.
    free_at: Instant,
}

impl Way {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            free_at: Instant::now(),
        }
    }

    /// When so many bytes that come now have left the sender; nothing if the queue is full.
    fn sent_at(&mut self, line: &Line, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = line.bytes_per_second else {
            return Some(now);
        };
        let begins = self.free_at.max(now);
        if begins - now > QUEUE {
            return None;
        }
        self.free_at = begins + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        Some(self.free_at)
    }

    /// When a datagram arrives, if it does.
    fn datagram(&mut self, line: &Line, bytes: usize, now: Instant) -> Option<Instant> {
        // Drawn whatever comes of it, so that the n-th datagram's fate does not hang on the line's settings.
        let (lost, overtakes, jitter): (f64, f64, f64) =
            (self.rng.random(), self.rng.random(), self.rng.random());
        let sent = self.sent_at(line, bytes, now)?;
        if lost < line.loss {
            return None;
        }
        if overtakes < line.reordering {
            return Some(sent);
        }
        Some(sent + line.delay + line.jitter.mul_f64(jitter))
    }

    /// When a chunk of a connection arrives, which is not before `last`, and whether a loss made it late.
    fn chunk(&mut self, line: &Line, bytes: usize, now: Instant, last: Instant) -> (Instant, bool) {
        let (lost, jitter): (f64, f64) = (self.rng.random(), self.rng.random());
        let sent = match line.bytes_per_second {
            None => now,
            Some(rate) => {
                let begins = self.free_at.max(now);
                self.free_at = begins + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
                self.free_at
            }
        };
        let late = lost < line.loss;
        let mut at = sent + line.delay + line.jitter.mul_f64(jitter);
        if late {
            at += line.delay * 2 + RETRANSMISSION;
        }
        (at.max(last), late)
    }
}

/// A datagram under way: when it arrives, which one it is, what it is.
type UnderWay = BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>;

fn udp_socket() -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let sizes = socket2::SockRef::from(&socket);
    sizes.set_recv_buffer_size(SOCKET_BUFFER)?;
    sizes.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn udp(socket: UdpSocket, far: Option<Vec<SocketAddr>>, shared: Arc<Shared>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = tokio::select! {
            () = shared.ended.notified() => return Ok(()),
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // Loopback's word for a client that is gone.
                Err(_) => continue,
            },
        };
        let datagram = buffer.get(..length).unwrap_or_default().to_vec();
        if let std::collections::hash_map::Entry::Vacant(new) = clients.entry(from) {
            let (sender, receiver) = mpsc::channel(CHUNKS);
            let upstream = UdpSocket::from_std(udp_socket()?)?;
            upstream.connect(shared.to).await?;
            let near = far.as_ref().is_some_and(|far| !far.contains(&from));
            tokio::spawn(client(
                Arc::clone(&socket),
                upstream,
                (from, near),
                receiver,
                Arc::clone(&shared),
            ));
            new.insert(sender);
        }
        // A full queue is a full router.
        let taken = clients
            .get(&from)
            .is_some_and(|client| client.try_send(datagram).is_ok());
        if !taken {
            shared.count(true);
        }
    }
}

/// Both ways of one client; of one that is near there is no line before it.
async fn client(
    socket: Arc<UdpSocket>,
    upstream: UdpSocket,
    (from, near): (SocketAddr, bool),
    mut there: mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
) {
    let mut ways = [Way::new(shared.seed), Way::new(shared.seed.wrapping_add(1))];
    let mut under_way: [UnderWay; 2] = [UnderWay::new(), UnderWay::new()];
    let mut number = 0u64;
    let mut buffer = vec![0; 65_536];
    loop {
        let due = under_way
            .iter()
            .filter_map(|heap| heap.peek().map(|Reverse((at, ..))| *at))
            .min();
        let (way, datagram) = tokio::select! {
            () = shared.ended.notified() => return,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let cut = !near && shared.is_cut();
                deliver(&socket, &upstream, from, &mut under_way, (&shared, cut)).await;
                continue;
            }
            datagram = there.recv() => match datagram {
                Some(datagram) => (0, datagram),
                None => return,
            },
            received = upstream.recv(&mut buffer) => match received {
                Ok(length) => (1, buffer.get(..length).unwrap_or_default().to_vec()),
                // The server is not there (yet, or any more).
                Err(_) => continue,
            },
        };
        if datagram.len() > ETHERNET {
            continue;
        }
        let now = Instant::now();
        let arrives = if near {
            Some(now)
        } else {
            let arrives = ways[way].datagram(&shared.line(), datagram.len(), now);
            arrives.filter(|_| !shared.is_cut())
        };
        match arrives {
            Some(at) => {
                number += 1;
                under_way[way].push(Reverse((at, number, datagram)));
            }
            None => shared.count(true),
        }
    }
}

async fn deliver(
    socket: &UdpSocket,
    upstream: &UdpSocket,
    from: SocketAddr,
    under_way: &mut [UnderWay; 2],
    (shared, cut): (&Shared, bool),
) {
    for (way, heap) in under_way.iter_mut().enumerate() {
        while heap.peek().is_some_and(|Reverse((at, ..))| *at <= Instant::now()) {
            let Some(Reverse((_, _, datagram))) = heap.pop() else {
                break;
            };
            let lost = cut
                || match way {
                    0 => upstream.send(&datagram).await.is_err(),
                    _ => socket.send_to(&datagram, from).await.is_err(),
                };
            shared.count(lost);
        }
    }
}

async fn tcp(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let (client, _) = tokio::select! {
            () = shared.ended.notified() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(shared.to).await else {
                return;
            };
            // The line is as long as it says, and not longer for small writes.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (client_rx, client_tx) = client.into_split();
            let (server_rx, server_tx) = server.into_split();
            let there = one_way(client_rx, server_tx, shared.seed, &shared);
            let back = one_way(server_rx, client_tx, shared.seed.wrapping_add(1), &shared);
            tokio::select! {
                () = shared.ended.notified() => {}
                () = async { tokio::join!(there, back); } => {}
            }
        });
    }
}

/// Carries one direction of a connection until its sender ends it.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seed: u64, shared: &Shared) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let reading = async move {
        let mut way = Way::new(seed);
        let mut last = Instant::now();
        let mut buffer = vec![0; CHUNK];
        loop {
            // What is sent over a cut line stays with its sender.
            shared.whole().await;
            let Ok(length @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            let (at, late) = way.chunk(&shared.line(), length, Instant::now(), last);
            last = at;
            shared.count(late);
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send((at, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = receiver.recv().await {
            sleep_until(at).await;
            shared.whole().await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn bad() -> Line {
        Line {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(3),
            loss: 0.2,
            reordering: 0.1,
            bytes_per_second: Some(10_000_000),
        }
    }

    #[test]
    fn datagrams_are_late_lost_and_out_of_order_and_a_seed_says_which() {
        let fates = |seed| {
            let mut way = Way::new(seed);
            let now = Instant::now();
            way.free_at = now;
            let fates = (0..1_000).map(|_| way.datagram(&bad(), 100, now).map(|at| at - now));
            fates.collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        let all = fates(7);
        let arrived: Vec<Duration> = all.iter().flatten().copied().collect();
        assert!((700..900).contains(&arrived.len()), "{} of 1000", arrived.len());
        assert!(arrived.windows(2).any(|pair| pair[0] > pair[1]), "all in order");
        assert!(arrived.iter().any(|late| *late < bad().delay), "none overtakes");
        let mut way = Way::new(1);
        let narrow = Line {
            bytes_per_second: Some(1_000),
            ..Line::of_rtt(Duration::ZERO)
        };
        let now = Instant::now();
        way.free_at = now;
        let taken = (0..10)
            .filter(|_| way.datagram(&narrow, 100, now).is_some())
            .count();
        assert_eq!(taken, 3, "a queue of 200 ms");
    }

    #[test]
    fn datagrams_find_their_way_back_and_none_through_a_cut() -> Result<()> {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        let relay = Relay::udp(server.local_addr()?, Line::of_rtt(Duration::from_millis(20)), 1)?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.connect(relay.addr())?;
        let mut buffer = [0; 100];
        let began = std::time::Instant::now();
        client.send(b"ahoy")?;
        let (length, from) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..length], from)?;
        let length = client.recv(&mut buffer)?;
        assert_eq!(&buffer[..length], b"ahoy");
        assert!(
            began.elapsed() >= Duration::from_millis(20),
            "{:?}",
            began.elapsed()
        );
        relay.cut();
        client.send(b"lost")?;
        crate::wait::until_true("the cut has taken it", 10, || Ok(relay.counts().1 == 1))?;
        relay.heal();
        client.send(b"found")?;
        let length = server.recv(&mut buffer)?;
        assert_eq!(&buffer[..length], b"found");
        Ok(())
    }

    #[test]
    fn bytes_of_a_connection_stay_in_order_through_losses_and_a_cut() -> Result<()> {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let line = Line {
            loss: 0.05,
            delay: Duration::from_millis(1),
            bytes_per_second: None,
            ..bad()
        };
        let relay = Relay::tcp(server.local_addr()?, line, 3)?;
        let sent: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
        let mut client = TcpStream::connect(relay.addr())?;
        let (mut accepted, _) = server.accept()?;
        let arrived = Arc::new(std::sync::Mutex::new(Vec::new()));
        let here = Arc::clone(&arrived);
        let reading = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = accepted.read(&mut chunk) {
                here.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
        });
        let arrived = || arrived.lock().unwrap().clone();
        let chunks = || {
            let (in_time, late) = relay.counts();
            in_time + late
        };
        client.write_all(&sent[..1_000])?;
        crate::wait::until_true("the first bytes arrive", 10, || Ok(arrived().len() == 1_000))?;
        relay.cut();
        let before = chunks();
        client.write_all(&sent[1_000..2_000])?;
        crate::wait::until_true("the relay has taken what it waited for", 10, || {
            Ok(chunks() > before)
        })?;
        client.write_all(&sent[2_000..])?;
        client.shutdown(std::net::Shutdown::Write)?;
        assert_eq!(arrived().len(), 1_000, "through a cut");
        assert!(chunks() <= before + 1, "the rest stays with its sender");
        relay.heal();
        reading.join().unwrap();
        assert!(arrived() == sent, "other bytes");
        Ok(())
    }
}
