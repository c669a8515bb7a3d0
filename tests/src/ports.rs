//! Free loopback ports, for TCP and UDP alike.
//!
//! They are taken below the range from which the kernel picks ports for outgoing connections, so that a daemon that was
//! killed finds its port free when it comes back.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// Where the next search begins; test processes that run side by side begin in different places.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback address whose port was free a moment ago and is handed out once by this process.
pub fn free() -> SocketAddr {
    if NEXT.load(Ordering::Relaxed) == 0 {
        let start = rand::random_range(1..COUNT);
        let _ = NEXT.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
    }
    loop {
        let at = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, at));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
