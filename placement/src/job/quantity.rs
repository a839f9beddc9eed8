//! Amounts as people write them: cores, bytes, times.

use alloc::{
    format,
    string::{String, ToString},
};

/// A text that is no amount of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct BadQuantity {
    pub text: String,
    pub wanted: &'static str,
}

const BYTES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("", 1),
];

/// Longest first, the order in which they may follow each other.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Cores as `250m`, `2` or `0.5`, in thousandths of a core.
pub fn parse_cpu(text: &str) -> Result<u64, BadQuantity> {
    let milli = match text.strip_suffix('m') {
        Some(whole) => decimal(whole).filter(|t| t % 1000 == 0).map(|t| t / 1000),
        None => decimal(text),
    };
    milli.ok_or_else(|| BadQuantity {
        text: text.to_string(),
        wanted: "a number of cores such as 2, 0.5 or 250m (thousandths)",
    })
}

/// Bytes as `64MiB`, `1.5GB` or a plain number. A fraction of a byte is dropped.
pub fn parse_bytes(text: &str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity { text: text.to_string(), wanted: "an amount such as 64MiB or 1.5GB" };
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let number = number.strip_suffix(' ').filter(|_| !unit.is_empty()).unwrap_or(number);
    let size = BYTES.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size).ok_or_else(bad)?;
    let thousandths = decimal(number).ok_or_else(bad)?;
    if unit.is_empty() && thousandths % 1000 != 0 {
        return Err(bad());
    }
    u64::try_from(u128::from(thousandths) * u128::from(size) / 1000).map_err(|_| bad())
}

/// A time as `10s`, `500ms` or `1m30s`, in milliseconds.
pub fn parse_duration(text: &str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity { text: text.to_string(), wanted: "a time such as 10s, 500ms or 1m30s" };
    let (mut rest, mut sum, mut units) = (text, 0u64, TIMES.as_slice());
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
        let thousandths = decimal(number).ok_or_else(bad)?;
        let part = u128::from(thousandths) * u128::from(units[at].1) / 1000;
        sum = u64::try_from(part).ok().and_then(|part| sum.checked_add(part)).ok_or_else(bad)?;
        // Each unit once and in order: `30s1m` is more likely a slip than a wish.
        units = &units[at + 1..];
        rest = tail;
    }
    if text.is_empty() { Err(bad()) } else { Ok(sum) }
}

/// The shortest form that `parse_cpu` reads back as the same amount.
pub fn format_cpu(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// In the largest of TiB, GiB, MiB and KiB that leaves no fraction, else in plain bytes: read back as the same amount.
pub fn format_bytes(bytes: u64) -> String {
    BYTES[..4]
        .iter()
        .find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size))
        .map_or_else(|| bytes.to_string(), |(name, size)| format!("{}{name}", bytes / size))
}

/// As `1m30s`: read back as the same time.
pub fn format_duration(ms: u64) -> String {
    let mut rest = ms;
    let mut out = String::new();
    for (name, size) in TIMES {
        if rest >= size {
            out.push_str(&format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    if out.is_empty() { "0s".to_string() } else { out }
}

/// A decimal number in thousandths; none if it is finer than that, or larger than any amount of anything.
fn decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let fine = fraction.trim_end_matches('0');
    if !digits(whole) || !digits(fraction) || fine.len() > 3 {
        return None;
    }
    let thousandths: u64 = format!("{fine:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, milli) in [("250m", 250), ("2", 2000), ("0.5", 500), ("1.2500", 1250), ("0", 0)] {
            assert_eq!(parse_cpu(text).unwrap(), milli, "{text}");
        }
        for (text, bytes) in
            [("64MiB", 64 << 20), ("1.5GB", 1_500_000_000), ("2 TiB", 2 << 40), ("7", 7), ("1kB", 1000)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for (text, ms) in
            [("10s", 10_000), ("500ms", 500), ("1m30s", 90_000), ("1h", 3_600_000), ("1.5s", 1500)]
        {
            assert_eq!(parse_duration(text).unwrap(), ms, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "m", "-1", "+1", "0.5m", "0.0001", "1e3", ".5", "1.", "2 ", "99999999999999999999"] {
            parse_cpu(text).unwrap_err();
        }
        for text in ["", "MiB", "64mb", "64 M iB", "1.5", "-1MiB", "99999999TiB", "64KB", "7 "] {
            parse_bytes(text).unwrap_err();
        }
        for text in ["", "10", "s", "30s1m", "1s1s", "1d", "10 s", "é", "9999999999999999h"] {
            parse_duration(text).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn written_amounts_are_read_back(n: u64, small in 0u64..1 << 50) {
            prop_assert_eq!(parse_cpu(&format_cpu(n % (1 << 50))).unwrap(), n % (1 << 50));
            prop_assert_eq!(parse_bytes(&format_bytes(small)).unwrap(), small);
            prop_assert_eq!(parse_duration(&format_duration(small)).unwrap(), small);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), near in "[0-9.]{0,25}[a-zA-Z]{0,3}") {
            for text in [text, near] {
                let _ = (parse_cpu(&text), parse_bytes(&text), parse_duration(&text));
            }
        }
    }
}
