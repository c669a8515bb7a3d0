//! The simulated network: datagrams between daemons, which may be late, lost, repeated, out of order, or cut off.
//!
//! QUIC runs on it as on a real one. A datagram takes at least a millisecond, the step of the simulation.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tradewind_transport::Datagrams;
use tradewind_wire::ids::NodeId;

use crate::entropy::Dice;
use crate::trace::Trace;

/// The port of every daemon's mesh endpoint.
pub const PORT: u16 = 9_000;

/// What the network does to datagrams from one daemon to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Nothing gets through.
    pub cut: bool,
    /// So many datagrams of a million are lost.
    pub loss: u64,
    /// So many of a million arrive twice.
    pub repeats: u64,
    /// The least time a datagram takes, in milliseconds.
    pub delay: u64,
    /// How much longer it may take; more than the time between two datagrams lets them overtake each other.
    pub jitter: u64,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            cut: false,
            loss: 0,
            repeats: 0,
            delay: 1,
            jitter: 1,
        }
    }
}

/// The network of one simulation. Clones share it.
#[derive(Debug, Clone)]
pub struct Net(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now: u64,
    sent: u64,
    dice: Dice,
    trace: Trace,
    paths: BTreeMap<(NodeId, NodeId), Path>,
    /// By the time of arrival, then in the order of sending.
    flying: BTreeMap<(u64, u64), Datagram>,
    sockets: BTreeMap<SocketAddr, Inbox>,
    next_port: u16,
}

#[derive(Debug, Clone)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Inbox {
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Net {
    /// A network without faults.
    pub fn new(seed: u64, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: 0,
            sent: 0,
            dice: Dice::new(seed, "network"),
            trace,
            paths: BTreeMap::new(),
            flying: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_port: PORT + 1,
        })))
    }

    /// The address of a daemon's mesh endpoint.
    pub fn address(node: NodeId) -> SocketAddr {
        let host = u8::try_from(node).unwrap_or(u8::MAX);
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), PORT)
    }

    /// Opens the mesh endpoint of `node`, or one of its others, on a port that was never used before.
    pub fn open(&self, node: NodeId, others: bool) -> Arc<dyn Datagrams> {
        let mut state = self.lock();
        let mut address = Self::address(node);
        if others {
            address.set_port(state.next_port);
            state.next_port += 1;
        }
        state.sockets.insert(address, Inbox::default());
        Arc::new(Socket {
            address,
            net: self.clone(),
        })
    }

    /// Closes every endpoint of a daemon that is gone.
    pub fn close(&self, node: NodeId) {
        self.lock().sockets.retain(|address, _| node_of(*address) != node);
    }

    /// Changes what becomes of datagrams from `from` to `to`.
    pub fn change(&self, from: NodeId, to: NodeId, change: impl FnOnce(&mut Path)) {
        change(self.lock().paths.entry((from, to)).or_default());
    }

    /// From now on nothing is wrong with the network any more.
    pub fn heal(&self) {
        self.lock().paths.clear();
    }

    /// Delivers what has arrived by `now`, in milliseconds.
    pub fn deliver(&self, now: u64) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        state.now = now;
        while let Some(next) = state.flying.first_entry().filter(|next| next.key().0 <= now) {
            let datagram = next.remove();
            let path = state.path(datagram.from, datagram.to);
            if path.cut {
                continue;
            }
            let Some(inbox) = state.sockets.get_mut(&datagram.to) else {
                continue;
            };
            inbox.arrived.push_back((datagram.from, datagram.bytes));
            woken.extend(inbox.reader.take());
        }
        drop(state);
        for waker in woken {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn path(&self, from: SocketAddr, to: SocketAddr) -> Path {
        let path = self.paths.get(&(node_of(from), node_of(to)));
        path.copied().unwrap_or_default()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.trace
            .note(self.now, || format!("datagram {from} {to} {}", bytes.len()));
        let path = self.path(from, to);
        if path.cut || self.dice.chance(path.loss) {
            return;
        }
        let copies = if self.dice.chance(path.repeats) { 2 } else { 1 };
        for _ in 0..copies {
            let arrives = self.now + path.delay.max(1) + self.dice.range(0, path.jitter + 1);
            self.sent += 1;
            let datagram = Datagram {
                from,
                to,
                bytes: bytes.to_vec(),
            };
            self.flying.insert((arrives, self.sent), datagram);
        }
    }
}

fn node_of(address: SocketAddr) -> NodeId {
    match address.ip() {
        IpAddr::V4(ip) => NodeId::from(ip.octets()[3]),
        IpAddr::V6(_) => -1,
    }
}

#[derive(Debug)]
struct Socket {
    address: SocketAddr,
    net: Net,
}

impl Datagrams for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.net.lock().send(self.address, to, datagram);
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<(usize, SocketAddr)> {
        let mut state = self.net.lock();
        let Some(inbox) = state.sockets.get_mut(&self.address) else {
            return Poll::Pending;
        };
        let Some((from, bytes)) = inbox.arrived.pop_front() else {
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        Poll::Ready((length, from))
    }
}
