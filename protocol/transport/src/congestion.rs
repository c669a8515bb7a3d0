//! The congestion controller of links: CUBIC, which on a long line does not take every loss for congestion.
//!
//! An acceptor does not know, when a connection begins, whether its peer is in the next rack or on another continent; the
//! controller learns it from the round-trip time. Below [`LONG`] it is CUBIC and nothing else. Above it:
//!
//! - Losses of up to one part in [`BORNE`] of what was sent in the last few round trips do not shrink the window: that
//!   many go missing on long lines without any congestion, and CUBIC would never fill such a line again. A full queue
//!   loses more than that and is believed. (BBRv2 draws its line at 2 % too.)
//! - After a time in which nothing arrived at all the line was cut, not crowded. CUBIC would begin again with two packets
//!   and take a second or more for a line of 100 ms; here it begins as a new connection would, but more carefully.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// From this round-trip time on a line is long.
const LONG: Duration = Duration::from_millis(5);
/// One lost byte of so many is borne on a long line.
const BORNE: u64 = 50;
/// Below so many packets a share says nothing: each loss counts.
const FEWEST_PACKETS: u64 = 100;
/// The window after a cut, at most, in bytes.
const AFTER_CUT: u64 = 256 << 10;

/// Makes a [`LineController`] for each connection.
#[derive(Debug, Clone)]
pub(crate) struct LineConfig {
    /// Bytes that may be sent before the first acknowledgement.
    pub(crate) initial_window: u64,
}

impl ControllerFactory for LineConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LineController::new(self.initial_window, now, current_mtu))
    }
}

#[derive(Clone)]
struct LineController {
    cubic: Cubic,
    mtu: u64,
    initial_window: u64,
    /// The least round-trip time so far, smoothed.
    least_rtt: Duration,
    round: Round,
}

/// What became of the packets of the last few round trips: older ones weigh half as much with each.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    arrived: u64,
    lost: u64,
}

impl LineController {
    fn new(initial_window: u64, now: Instant, current_mtu: u16) -> Self {
        Self {
            cubic: cubic(initial_window, now, current_mtu),
            mtu: u64::from(current_mtu),
            initial_window,
            least_rtt: Duration::MAX,
            round: Round {
                began: now,
                arrived: 0,
                lost: 0,
            },
        }
    }

    fn is_long(&self) -> bool {
        self.least_rtt != Duration::MAX && self.least_rtt >= LONG
    }

    /// Whether the losses of late are no more than a long line has by itself.
    fn bears_losses(&self) -> bool {
        let sent = self.round.arrived + self.round.lost;
        sent >= FEWEST_PACKETS * self.mtu && self.round.lost <= sent / BORNE
    }
}

fn cubic(initial_window: u64, now: Instant, mtu: u16) -> Cubic {
    let mut config = CubicConfig::default();
    config.initial_window(initial_window);
    Cubic::new(Arc::new(config), now, mtu)
}

impl Controller for LineController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.least_rtt = self.least_rtt.min(rtt.get());
        if now.saturating_duration_since(self.round.began) >= rtt.get() {
            self.round = Round {
                began: now,
                arrived: self.round.arrived / 2,
                lost: self.round.lost / 2,
            };
        }
        self.round.arrived += bytes;
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.round.lost += lost_bytes;
        if self.is_long() && is_persistent_congestion {
            let window = (self.cubic.window() / 2).clamp(2 * self.mtu, AFTER_CUT);
            self.cubic = cubic(window, now, u16::try_from(self.mtu).unwrap_or(u16::MAX));
            return;
        }
        // Without lost bytes it is a router's own word (ECN), which is always believed.
        if self.is_long() && lost_bytes > 0 && self.bears_losses() {
            return;
        }
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1_200;
    const INITIAL: u64 = 1 << 20;

    /// A controller of a line with this round-trip time, in the given round.
    fn on_line(least_rtt: Duration, packets_arrived: u64) -> (LineController, Instant) {
        // Any moment will do: the controller is told every time.
        let now = tokio::time::Instant::now().into_std();
        let mut line = LineController::new(INITIAL, now, MTU);
        line.least_rtt = least_rtt;
        line.round.arrived = packets_arrived * u64::from(MTU);
        (line, now)
    }

    fn lose(line: &mut LineController, now: Instant, packets: u64, cut: bool) {
        line.on_congestion_event(now + Duration::from_millis(1), now, cut, packets * u64::from(MTU));
    }

    #[test]
    fn a_long_line_bears_few_losses_and_believes_many() {
        let (mut line, now) = on_line(Duration::from_millis(100), 1_000);
        lose(&mut line, now, 20, false);
        assert_eq!(line.window(), INITIAL, "2 % are borne");
        lose(&mut line, now, 20, false);
        assert!(line.window() < INITIAL, "4 % are not");
    }

    #[test]
    fn a_short_line_believes_each_loss() {
        let (mut line, now) = on_line(Duration::from_millis(1), 10_000);
        lose(&mut line, now, 1, false);
        assert!(line.window() < INITIAL);
        let (mut unmeasured, now) = on_line(Duration::MAX, 10_000);
        lose(&mut unmeasured, now, 1, false);
        assert!(unmeasured.window() < INITIAL);
    }

    #[test]
    fn few_packets_and_marks_of_routers_are_believed() {
        let (mut line, now) = on_line(Duration::from_millis(100), 50);
        lose(&mut line, now, 1, false);
        assert!(line.window() < INITIAL);
        let (mut marked, now) = on_line(Duration::from_millis(100), 10_000);
        lose(&mut marked, now, 0, false);
        assert!(marked.window() < INITIAL);
    }

    #[test]
    fn after_a_cut_a_long_line_begins_with_more_than_two_packets() {
        let (mut line, now) = on_line(Duration::from_millis(100), 0);
        lose(&mut line, now, 500, true);
        assert_eq!(line.window(), AFTER_CUT);
        let (mut short, now) = on_line(Duration::from_millis(1), 0);
        lose(&mut short, now, 500, true);
        assert_eq!(short.window(), 2 * u64::from(MTU));
    }
}
