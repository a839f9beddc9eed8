//! Lengths of time and points in time, as people write them.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long to wait: `30s`, `2m`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience(pub(crate) Duration);

impl Patience {
    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Patience {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Patience)
            .map_err(|_| "a duration is written as 500ms, 30s, 2m, 1h or 7d".into())
    }
}

/// A point in time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) u64);

impl FromStr for Since {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        at(text, SystemTime::now())
            .map(Since)
            .ok_or_else(|| "a time is written as 2026-05-04T12:00:00Z, or as an age: 30s, 10m, 2h".into())
    }
}

fn at(text: &str, now: SystemTime) -> Option<u64> {
    let time = match humantime::parse_duration(text) {
        Ok(age) => now.checked_sub(age).unwrap_or(UNIX_EPOCH),
        Err(_) => humantime::parse_rfc3339_weak(text).ok()?,
    };
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ages_and_times() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(at("10s", now), Some(999_990_000));
        assert_eq!(at("1970-01-01T00:00:01Z", now), Some(1000));
        assert_eq!(at("100000d", now), Some(0));
        assert_eq!(at("yesterday", now), None);
        assert_eq!("90s".parse::<Patience>().unwrap().0.as_secs(), 90);
        assert!("soon".parse::<Patience>().unwrap_err().contains("30s"));
    }
}
