//! What a mesh endpoint needs of the network when it is not a UDP socket, and its fitting to quinn.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// A network that carries datagrams, as a simulation provides it. Datagrams may be lost, repeated or come out of order.
pub trait Datagrams: Debug + Send + Sync + 'static {
    /// The address that others send to.
    fn local_addr(&self) -> SocketAddr;

    /// Sends one datagram. There is always room; what nobody receives is lost without a word.
    fn send(&self, to: SocketAddr, datagram: &[u8]);

    /// Receives one datagram into `into` (cutting what is too long): its length and its sender. Wakes `cx` when there is
    /// one, if there is none now.
    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<(usize, SocketAddr)>;
}

#[derive(Debug)]
pub(crate) struct Adapter(pub(crate) Arc<dyn Datagrams>);

impl AsyncUdpSocket for Adapter {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let datagram_size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(datagram_size) {
            self.0.send(transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(into), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let (len, addr) = ready!(self.0.poll_recv(cx, into));
        *meta = RecvMeta {
            addr,
            len,
            stride: len,
            ecn: None,
            dst_ip: None,
        };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
