//! Amounts on the command line, written as in a job file.

/// `4`, `0.5` or `500m`, in thousandths of a CPU.
pub(crate) fn cpu_milli(text: &str) -> Result<u64, String> {
    let milli = match text.strip_suffix('m') {
        Some(milli) => milli.parse().ok(),
        None => text
            .parse::<f64>()
            .ok()
            .filter(|cpus| cpus.is_finite())
            .map(|cpus| (cpus * 1000.0).round() as u64),
    };
    // The kernel takes no quota below a hundredth of a CPU.
    milli
        .filter(|milli| (10..=1_000_000).contains(milli))
        .ok_or_else(|| "it is a number of CPUs, like 4, 0.5 or 500m, and 10m at least".to_owned())
}

/// A number of hosts, or of racks for them: a lab's addresses end in it.
pub(crate) fn hosts(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|hosts| (1..=250).contains(hosts)).ok_or("a lab has 1 to 250 of them")
}

/// `64MiB`, `4GiB`, `1GB` …
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    // A file system and an agent need some room.
    const LEAST: u64 = 16 << 20;
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
    let number = number.parse::<f64>().ok().filter(|number| number.is_finite());
    let bytes = number.zip(unit).map(|(number, unit)| (number * unit as f64) as u64);
    bytes
        .filter(|bytes| *bytes >= LEAST)
        .ok_or_else(|| "it is a size like 64MiB, 4GiB or 1GB, and 16MiB at least".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(cpu_milli("4"), Ok(4000));
        assert_eq!(cpu_milli("0.5"), Ok(500));
        assert_eq!(cpu_milli("250m"), Ok(250));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(bytes("1GB"), Ok(1_000_000_000));
        assert_eq!((hosts("1"), hosts("250")), (Ok(1), Ok(250)));
        for bad in ["", "0", "251", "-1", "many"] {
            assert!(hosts(bad).is_err_and(|why| why.contains("1 to 250")), "{bad}");
        }
        for bad in ["", "m", "-1", "inf", "0", "5m"] {
            assert!(cpu_milli(bad).is_err(), "{bad}");
        }
        for bad in ["", "64", "64 MiB", "MiB", "1KiB", "-1GiB", "1TB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
