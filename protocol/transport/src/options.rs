//! How a mesh endpoint behaves on the network: limits, and the settings of the links.
//!
//! The defaults suit daemons of one data centre, and the accepting end of a link of any length: its controller finds out.
//! [`TransportOptions::line`] is for whoever dials another cluster. Liveness is not
//! decided by these timeouts but by the sessions of the layers above; they only bound how long a dead path lingers.

use std::sync::Arc;
use std::time::Duration;

use crate::congestion::LineConfig;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// The limits of one endpoint. See [`crate::Mesh::bind`].
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// The stateless-reset key. Kept with the daemon's data, so that after a restart its peers learn at once that their
    /// connections are gone. Secret.
    pub reset_key: [u8; 64],
    /// How links behave, accepted and dialled alike unless a dial says otherwise.
    pub transport: TransportOptions,
    /// Established connections at most; further ones are refused.
    pub max_connections: usize,
    /// Handshakes of accepted connections at most at a time. From half of it on, a peer must first prove its address
    /// (a QUIC retry), so that forged addresses cannot hold the places.
    pub max_handshakes: usize,
    /// How long a handshake may take, in either direction.
    pub handshake_timeout: Duration,
}

impl MeshOptions {
    /// The defaults, with this stateless-reset key.
    pub fn new(reset_key: [u8; 64]) -> Self {
        Self {
            reset_key,
            transport: TransportOptions::default(),
            max_connections: 1_024,
            max_handshakes: 128,
            handshake_timeout: Duration::from_secs(3),
        }
    }
}

/// The congestion controller of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// CUBIC, which on a long line bears losses of up to 2 % and begins again quickly after a cut.
    Line,
    /// CUBIC (RFC 9438).
    Cubic,
    /// BBR: does not take every loss for congestion; for long links with random loss.
    Bbr,
    /// NewReno (RFC 9002).
    NewReno,
}

/// The settings of a link.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// The round-trip time assumed before the first measurement; decides how soon a lost first packet is sent again.
    pub initial_rtt: Duration,
    /// How often an idle connection is probed. Also how soon a restarted peer is noticed.
    pub keep_alive: Duration,
    /// How long a silent path is kept.
    pub idle_timeout: Duration,
    /// Streams that the peer may have open at a time.
    pub max_streams: u32,
    /// Bytes in flight on one stream, receiving.
    pub stream_window: u32,
    /// Bytes in flight on one connection, receiving.
    pub connection_window: u32,
    /// Bytes unacknowledged on one connection, sending.
    pub send_window: u64,
    /// The congestion controller.
    pub congestion: Congestion,
    /// Bytes that may be sent before the first acknowledgement.
    pub initial_window: u64,
    /// How many packets may overtake one before it counts as lost (at least 3). Long links reorder, and an acceptor does
    /// not know which link is long; time tells of a loss on a short one within milliseconds.
    pub packet_threshold: u32,
    /// The largest UDP payload that is tried.
    pub max_datagram: u16,
    /// Packets received before an acknowledgement is sent at once.
    pub ack_threshold: u32,
    /// The longest that an acknowledgement is held back.
    pub max_ack_delay: Duration,
    /// Hand the kernel many packets in one call.
    pub segmentation_offload: bool,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            initial_rtt: Duration::from_millis(10),
            keep_alive: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(3),
            max_streams: 1_024,
            stream_window: 8 << 20,
            connection_window: 64 << 20,
            send_window: 32 << 20,
            congestion: Congestion::Line,
            initial_window: 1 << 20,
            packet_threshold: 64,
            max_datagram: 8_952,
            ack_threshold: 10,
            max_ack_delay: Duration::from_millis(2),
            segmentation_offload: true,
        }
    }
}

/// What one link between clusters is expected to carry, in bytes per second (1 Gbit/s twice: half is room for bursts).
const LINE_RATE: u64 = 250_000_000;
/// The window of a link between clusters: at least, and at most.
const LINE_WINDOW: (u32, u32) = (8 << 20, 32 << 20);

impl TransportOptions {
    /// Settings for links between clusters, whose delay is not known before they are made. The connection's window begins
    /// small; [`crate::MeshConn::fit_to_line`] lets it grow to what the measured round trip needs. So one link holds at
    /// most twice 32 MiB at its receiver (what has arrived, and what is being made into frames), and at its sender no more
    /// than that endpoint's `send_window`.
    pub fn line() -> Self {
        Self {
            stream_window: LINE_WINDOW.1,
            connection_window: LINE_WINDOW.0,
            ..Self::default()
        }
    }

    /// The connection window for a link between clusters with this round-trip time.
    pub fn line_window(rtt: Duration) -> u32 {
        let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        let window = rtt_us.saturating_mul(LINE_RATE) / 1_000_000;
        u32::try_from(window)
            .unwrap_or(u32::MAX)
            .clamp(LINE_WINDOW.0, LINE_WINDOW.1)
    }

    pub(crate) fn to_quinn(&self) -> Arc<TransportConfig> {
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(self.ack_threshold))
            .max_ack_delay(Some(self.max_ack_delay))
            .reordering_threshold(VarInt::from_u32(self.packet_threshold.max(3) - 1));
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.max_datagram.max(1_200));
        let mut config = TransportConfig::default();
        config
            .initial_rtt(self.initial_rtt)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_streams))
            // One, for the acceptor's greeting (see `mesh`).
            .max_concurrent_uni_streams(VarInt::from_u32(1))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(self.send_window)
            .packet_threshold(self.packet_threshold.max(3))
            .congestion_controller_factory(self.controller())
            .mtu_discovery_config(Some(mtu))
            .ack_frequency_config(Some(acks))
            .enable_segmentation_offload(self.segmentation_offload)
            .datagram_receive_buffer_size(None);
        Arc::new(config)
    }

    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self.congestion {
            Congestion::Line => Arc::new(LineConfig {
                initial_window: self.initial_window,
            }),
            Congestion::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(self.initial_window);
                Arc::new(config)
            }
            Congestion::Bbr => {
                let mut config = BbrConfig::default();
                config.initial_window(self.initial_window);
                Arc::new(config)
            }
            Congestion::NewReno => {
                let mut config = NewRenoConfig::default();
                config.initial_window(self.initial_window);
                Arc::new(config)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_between_clusters_holds_what_its_delay_needs_and_no_more_than_its_bound() {
        let mib = |rtt_ms| TransportOptions::line_window(Duration::from_millis(rtt_ms)) >> 20;
        assert_eq!([mib(0), mib(10), mib(100), mib(1_000)], [8, 8, 23, 32]);
        assert_eq!(TransportOptions::line_window(Duration::MAX) >> 20, 32);
        let line = TransportOptions::line();
        assert!(line.connection_window <= line.stream_window);
        line.to_quinn();
    }
}
