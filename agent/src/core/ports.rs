//! Ports, allotted from the books: in order, with a cursor that moves on, so that a port just given back is not at
//! once somebody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// How long a port that a stranger holds is left alone.
const BUSY_MS: u64 = 60_000;

#[derive(Debug, Clone)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    /// Where the next search begins.
    cursor: u16,
    /// Held by somebody else: until when (monotonic) they are not tried again.
    busy: BTreeMap<u16, u64>,
}

impl Ports {
    /// Begins with `first`, or with the range if that lies outside it.
    pub(crate) fn new(range: RangeInclusive<u16>, first: u16) -> Self {
        let cursor = if range.contains(&first) { first } else { *range.start() };
        Ports { cursor, range, busy: BTreeMap::new() }
    }

    /// Begins after the highest of `used`, as the last agent would have gone on.
    pub(crate) fn resume(&mut self, used: &BTreeSet<u16>) {
        if let Some(highest) = used.range(self.range.clone()).next_back() {
            self.cursor = self.after(*highest);
        }
    }

    /// A port for each name, or how many are free. Nothing is allotted unless all are.
    pub(crate) fn allot(
        &mut self,
        names: &[String],
        used: &BTreeSet<u16>,
        mono_ms: u64,
    ) -> Result<BTreeMap<String, u16>, u64> {
        self.busy.retain(|_, until| *until > mono_ms);
        let names: BTreeSet<&String> = names.iter().collect();
        let mut found = Vec::with_capacity(names.len());
        let mut cursor = self.cursor;
        for _ in self.range.clone() {
            if found.len() == names.len() {
                break;
            }
            if !used.contains(&cursor) && !self.busy.contains_key(&cursor) {
                found.push(cursor);
            }
            cursor = self.after(cursor);
        }
        if found.len() < names.len() {
            return Err(found.len() as u64);
        }
        self.cursor = cursor;
        Ok(names.into_iter().cloned().zip(found).collect())
    }

    pub(crate) fn mark_busy(&mut self, port: u16, mono_ms: u64) {
        self.busy.insert(port, mono_ms + BUSY_MS);
    }

    fn after(&self, port: u16) -> u16 {
        if port < *self.range.start() || port >= *self.range.end() { *self.range.start() } else { port + 1 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("p{i}")).collect()
    }

    #[test]
    fn a_port_given_back_is_reused_last() {
        let mut ports = Ports::new(20000..=20002, 20000);
        let mut got = Vec::new();
        for _ in 0..4 {
            got.extend(ports.allot(&names(1), &BTreeSet::new(), 0).unwrap().into_values());
        }
        assert_eq!(got, [20000, 20001, 20002, 20000]);
    }

    #[test]
    fn all_or_none() {
        let mut ports = Ports::new(20000..=20002, 20000);
        assert_eq!(ports.allot(&names(3), &[20001].into(), 0), Err(2));
        assert_eq!(
            ports.allot(&names(1), &BTreeSet::new(), 0).unwrap()["p0"],
            20000,
            "the cursor did not move"
        );
    }

    #[test]
    fn a_busy_port_comes_back_after_a_while() {
        let mut ports = Ports::new(20000..=20000, 20000);
        ports.mark_busy(20000, 0);
        assert_eq!(ports.allot(&names(1), &BTreeSet::new(), BUSY_MS - 1), Err(0));
        assert!(ports.allot(&names(1), &BTreeSet::new(), BUSY_MS).is_ok());
    }

    #[test]
    fn a_name_twice_is_one_port() {
        let mut ports = Ports::new(20000..=20001, 20000);
        assert_eq!(ports.allot(&["a".into(), "a".into()], &BTreeSet::new(), 0).unwrap().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A thousand tasks that come and go, strangers that take ports, and agents that start anew, on so few ports
        /// that they run out: what one task holds is never another's, and all that is free can be had.
        #[test]
        fn a_port_is_never_handed_twice_while_in_use(steps in vec((0..8u32, any::<usize>()), 1000)) {
            const RANGE: RangeInclusive<u16> = 20000..=20015;
            let mut ports = Ports::new(RANGE, 20000);
            let mut held: Vec<Vec<u16>> = Vec::new();
            let mut strangers: BTreeMap<u16, u64> = BTreeMap::new();
            for (now, (step, any)) in (0u64..).step_by(1_000).zip(steps) {
                let used: BTreeSet<u16> = held.iter().flatten().copied().collect();
                strangers.retain(|_, until| *until > now);
                match step {
                    0..=3 => {
                        let wanted = any % 4 + 1;
                        let free = RANGE.filter(|p| !used.contains(p) && !strangers.contains_key(p)).count();
                        match ports.allot(&names(wanted), &used, now) {
                            Ok(got) => {
                                let got: Vec<u16> = got.into_values().collect();
                                prop_assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), wanted);
                                for port in &got {
                                    prop_assert!(RANGE.contains(port) && !used.contains(port), "{}", port);
                                    prop_assert!(!strangers.contains_key(port), "{} is a stranger's", port);
                                }
                                held.push(got);
                            }
                            Err(said) => prop_assert!(free < wanted && said == free as u64),
                        }
                    }
                    4..=5 if !held.is_empty() => drop(held.swap_remove(any % held.len())),
                    6 => {
                        let port = RANGE.start() + (any % RANGE.len()) as u16;
                        ports.mark_busy(port, now);
                        strangers.insert(port, now + BUSY_MS);
                    }
                    7 => {
                        ports = Ports::new(RANGE, 20000);
                        ports.resume(&used);
                        // It finds them out by itself.
                        strangers.clear();
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn resumes_after_the_highest_and_ignores_what_is_out_of_range() {
        let mut ports = Ports::new(20000..=20009, 20000);
        ports.resume(&[80, 20004].into());
        assert_eq!(ports.allot(&names(1), &[20004].into(), 0).unwrap()["p0"], 20005);
    }
}
