//! Moments and spans of time on the command line, as Kafka's tools write them and as people do.

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use tradewind_client::OffsetSpec;

/// A moment, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) i64);

impl FromStr for Moment {
    type Err = String;

    /// Milliseconds since 1970, or `YYYY-MM-DD[Thh:mm[:ss[.sss]]][Z|+hh[[:]mm]]`; without a zone it is UTC.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ms) = text.parse::<i64>()
            && ms >= 0
        {
            return Ok(Self(ms));
        }
        let wrong =
            || "write milliseconds since 1970 or a moment such as 2026-11-21T08:00:00.000+01:00".to_owned();
        let (date, time) = match text.split_once(['T', ' ']) {
            Some((date, time)) => (date, time),
            None => (text, "00:00:00"),
        };
        let zone_at = time.rfind(['+', '-', 'Z']).unwrap_or(time.len());
        let (time, zone) = time.split_at_checked(zone_at).ok_or_else(wrong)?;
        let seconds = if time.len() == "hh:mm".len() { ":00" } else { "" };
        let local = humantime::parse_rfc3339_weak(&format!("{date}T{time}{seconds}")).map_err(|_| wrong())?;
        let since = local.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
        let local_ms = i64::try_from(since.as_millis()).map_err(|_| wrong())?;
        let ahead_ms = zone_ms(zone).ok_or_else(wrong)?;
        Ok(Self(local_ms - ahead_ms))
    }
}

/// A moment in UTC, to the second.
pub(super) fn utc(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    match UNIX_EPOCH.checked_add(since) {
        Some(at) if since < LATEST => humantime::format_rfc3339_seconds(at).to_string(),
        _ => ms.to_string(),
    }
}

/// The end of the year 9999, which has no name after it.
const LATEST: Duration = Duration::from_secs(253_402_300_800);

/// By how much a zone is ahead of UTC: of "", `Z`, `+hh`, `+hhmm`, `+hh:mm` and the same with a minus.
fn zone_ms(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'Z') => return (zone.len() == 1).then_some(0),
        Some(b'+') => (1, zone.get(1..)?),
        _ => (-1, zone.get(1..)?),
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    let number = |text: &str| {
        text.parse::<i64>()
            .ok()
            .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
    };
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => (number(digits.get(..2)?)?, number(digits.get(2..)?)?),
        _ => return None,
    };
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    /// ISO 8601 with days as its largest unit (`P1DT12H`), or `1d12h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.strip_prefix('P') {
            Some(rest) => iso(rest),
            None => humantime::parse_duration(text).ok(),
        };
        read.map(Self)
            .ok_or_else(|| "write a duration such as PT1H30M or 1h30m".to_owned())
    }
}

/// `nDTnHnMn.nS`: each unit at most once, in this order.
fn iso(text: &str) -> Option<Duration> {
    let (days, time) = match text.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (text, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total_ms = 0f64;
    for (mut rest, units) in [
        (days, &[('D', 86_400_000f64)][..]),
        (
            time,
            &[('H', 3_600_000f64), ('M', 60_000f64), ('S', 1_000f64)][..],
        ),
    ] {
        let mut next = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let unit = rest.get(end..)?.chars().next()?;
            let at = next + units.get(next..)?.iter().position(|(name, _)| *name == unit)?;
            let number = rest.get(..end)?;
            // Only seconds have fractions.
            if number.is_empty() || (number.contains('.') && unit != 'S') {
                return None;
            }
            total_ms += number.parse::<f64>().ok()? * units.get(at)?.1;
            next = at + 1;
            rest = rest.get(end + 1..)?;
        }
    }
    (total_ms < 1e15).then(|| Duration::from_millis(total_ms.round() as u64))
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) OffsetSpec);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "latest" | "-1" => OffsetSpec::Latest,
            "earliest" | "-2" => OffsetSpec::Earliest,
            "max-timestamp" | "-3" => OffsetSpec::MaxTimestamp,
            "earliest-local" | "-4" => OffsetSpec::EarliestLocal,
            "latest-tiered" | "-5" => OffsetSpec::LatestTiered,
            _ => {
                let moment = text.parse::<Moment>().map_err(|why| {
                    format!("{why}; or earliest, latest, max-timestamp, earliest-local, latest-tiered")
                })?;
                OffsetSpec::At(moment.0)
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<i64> {
        text.parse::<Moment>().ok().map(|moment| moment.0)
    }

    #[test]
    fn a_moment_is_milliseconds_or_a_date_in_some_zone() {
        let expected = Some(1_763_712_000_000);
        for same in [
            "1763712000000",
            "2025-11-21T08:00:00.000",
            "2025-11-21T08:00:00Z",
            "2025-11-21T08:00",
            "2025-11-21 08:00:00",
            "2025-11-21T09:00:00.000+01:00",
            "2025-11-21T09:00+01",
            "2025-11-21T02:30:00.000-0530",
        ] {
            assert_eq!(ms(same), expected, "{same}");
        }
        assert_eq!(ms("2025-11-21"), Some(1_763_683_200_000));
        assert_eq!(ms("1970-01-01T00:00:00.007"), Some(7));
        for wrong in [
            "",
            "-5",
            "yesterday",
            "2025-13-01T00:00:00Z",
            "2025-11-21T08:00:00+1",
            "2025-11-21T08:00:00+99:00",
            "2025-11-21T08:00:00é",
        ] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_span_is_iso_8601_or_as_people_write() {
        let seconds = |text: &str| text.parse::<Span>().ok().map(|span| span.0.as_secs_f64());
        assert_eq!(seconds("PT1H30M"), Some(5_400.0));
        assert_eq!(seconds("P1DT0.5S"), Some(86_400.5));
        assert_eq!(seconds("P2D"), Some(172_800.0));
        assert_eq!(seconds("90m"), Some(5_400.0));
        for wrong in [
            "", "P", "PT", "P1DT", "PT1M1H", "P1H", "PT1.5H", "PTS", "P1", "one hour",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn offsets_are_asked_for_by_name_number_or_time() {
        let at = |text: &str| text.parse::<At>().ok().map(|at| at.0);
        assert_eq!(at("earliest"), Some(OffsetSpec::Earliest));
        assert_eq!(at("-1"), Some(OffsetSpec::Latest));
        assert_eq!(at("max-timestamp"), Some(OffsetSpec::MaxTimestamp));
        assert_eq!(at("7"), Some(OffsetSpec::At(7)));
        assert_eq!(at("1970-01-01"), Some(OffsetSpec::At(0)));
        assert_eq!(at("newest"), None);
    }
}
