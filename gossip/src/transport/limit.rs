//! How often a stranger may knock.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Attempts at once; then one each `EACH`.
const BURST: u32 = 10;
const EACH: Duration = Duration::from_secs(1);
/// Addresses remembered. When more knock, the one that may knock again soonest is forgotten.
const REMEMBERED: usize = 4096;

/// Attempts by source address (a token bucket each). Pure: `now` is since any fixed moment.
#[derive(Default)]
pub(super) struct Limit {
    /// When each address will have a full bucket again.
    full_at: BTreeMap<IpAddr, Duration>,
}

impl Limit {
    /// Counts an attempt; if there were too many, how long to wait.
    pub(super) fn attempt(&mut self, from: IpAddr, now: Duration) -> Result<(), Duration> {
        let full = self.full_at.get(&from).map_or(now, |full| (*full).max(now)) + EACH;
        let allowed = now + EACH * BURST;
        if full > allowed {
            return Err(full - allowed);
        }
        if self.full_at.len() >= REMEMBERED {
            self.full_at.retain(|_, full| *full > now);
        }
        if self.full_at.len() >= REMEMBERED
            && let Some(soonest) = self.full_at.iter().min_by_key(|(_, full)| **full).map(|(ip, _)| *ip)
        {
            self.full_at.remove(&soonest);
        }
        self.full_at.insert(from, full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_burst_and_then_one_each_second() {
        let mut limit = Limit::default();
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let at = Duration::from_millis;
        for _ in 0..10 {
            assert_eq!(limit.attempt(a, at(5_000)), Ok(()));
        }
        assert_eq!(limit.attempt(a, at(5_000)), Err(at(1_000)));
        assert_eq!(limit.attempt(a, at(5_400)), Err(at(600)));
        assert_eq!(limit.attempt(b, at(5_400)), Ok(()), "another is not held up");
        assert_eq!(limit.attempt(a, at(6_000)), Ok(()));
        assert_eq!(limit.attempt(a, at(6_000)), Err(at(1_000)));
        for _ in 0..10 {
            assert_eq!(limit.attempt(a, at(60_000)), Ok(()));
        }
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let mut limit = Limit::default();
        for n in 0..4_200u32 {
            assert_eq!(limit.attempt(IpAddr::V4(n.into()), Duration::ZERO), Ok(()));
        }
        assert!(limit.full_at.len() <= REMEMBERED);
    }
}
