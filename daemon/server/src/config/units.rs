//! Quantities as they are written in a configuration: a number with its unit, never a bare number.

use std::time::Duration;

/// Reads `30s`, `250ms`, `10m`, `1h 30m`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!(
            "`{text}` has no unit: write for example `{text}s` or `{text}ms`"
        ));
    }
    humantime::parse_duration(text).map_err(|_| {
        format!("`{text}` is not a duration: write a number with ms, s, m, h or d, for example `30s`")
    })
}

/// Reads `64MiB`, `512KiB`, `1GiB`, `100B` and the decimal `kB`, `MB`, `GB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is not a size: write a number with B, KiB, MiB, GiB or TiB, for example `64MiB`")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor: u64 = match unit.trim() {
        "" => {
            return Err(format!(
                "`{text}` has no unit: write for example `{text}MiB` or `{text}B`"
            ));
        }
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// Reads `host:port`; an IPv6 host stands in brackets.
pub(crate) fn host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not an address: write host:port, for example `127.0.0.1:9092`");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if host.is_empty() || (bare.is_none() && host.contains(':')) || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_| wrong())?;
    Ok((bare.unwrap_or(host).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert!(duration("30").unwrap_err().contains("no unit"));
        assert!(duration("30 parsecs").unwrap_err().contains("not a duration"));
    }

    #[test]
    fn sizes_carry_a_unit() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("100 B"), Ok(100));
        assert!(size("64").unwrap_err().contains("no unit"));
        assert!(size("64MiBs").unwrap_err().contains("not a size"));
        assert!(size("99999999999TiB").unwrap_err().contains("too large"));
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(host_port("a.example:9092"), Ok(("a.example".into(), 9092)));
        assert_eq!(host_port("[::1]:1"), Ok(("::1".into(), 1)));
        for wrong in ["9092", ":9092", "host:", "host:70000", "::1:9092", "a b:1"] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }
}
