//! How long to wait before trying again: twice as long each time, up to a bound, with a random part so that many clients
//! do not come back at the same moment.

use std::time::Duration;

use tradewind_wire::clock::Rng;

/// The first wait, before the random part.
const FIRST: Duration = Duration::from_millis(25);

/// The longest wait, before the random part.
const LONGEST: Duration = Duration::from_secs(1);

/// The wait after `attempts` failures (from 1): between 80 % and 120 % of the nominal one.
pub(crate) fn backoff(attempts: u32, rng: &dyn Rng) -> Duration {
    let nominal = FIRST
        .saturating_mul(1 << attempts.saturating_sub(1).min(16))
        .min(LONGEST);
    let percent = u32::try_from(80 + rng.next_u64() % 41).unwrap_or(100);
    nominal * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl Rng for Fixed {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        let middle = Fixed(20);
        let waits: Vec<_> = (1..=8)
            .map(|attempts| backoff(attempts, &middle).as_millis())
            .collect();
        assert_eq!(waits, [25, 50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff(u32::MAX, &Fixed(40)), LONGEST * 120 / 100);
        assert_eq!(backoff(1, &Fixed(0)), FIRST * 80 / 100);
    }
}
