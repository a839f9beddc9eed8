//! Which limits would fit a job, and what risk they carry: from what its tasks used.
//!
//! CPU: the risk is the share of time in which a task would be held back. Memory: the probability that a task is killed
//! within a day. What a task could not get (since it is at its limit, or its node had no more to give) nobody has seen; so a
//! task that is often at its limit is advised to try more, and what is advised is no less than what was seen with a margin.

use placement::resources::{CPU, MEMORY, Resources};

use super::{JobHistory, WINDOW_MS, decaying::HALF_LIFE_MS};

/// What is added to what was seen; VPA's.
const MARGIN: f64 = 0.15;
/// More of it while less than a day was seen: this, divided by the days.
const DOUBT: f64 = 0.05;
const MOST_DOUBT: f64 = 0.5;
/// A task that uses so much of its CPU limit may want more.
const AT_LIMIT: f64 = 0.95;
/// A limit that is lower by less than this share is not worth a change.
const WORTH: f64 = 0.1;
/// Peaks of memory differ at least so much, as the logarithm: more than was seen so far is always possible.
const LEAST_SPREAD: f64 = 0.02;
const LEAST: [u64; 2] = [10, 8 << 20];

/// What one asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// From 0 to 1: of CPU and of memory.
    pub risk: f64,
    /// With less history nothing is advised.
    pub enough_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    NotEnough,
    Keep,
    Change,
}

/// Of one resource, for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Advised {
    pub limit: u64,
    pub advised: u64,
    /// What was seen: of CPU all but the share of time that the wish tolerates, of memory the most.
    pub used: u64,
    /// At the limit as it is; none: nothing was seen yet.
    pub risk_now: Option<f64>,
    /// At the advised one; none: it is higher than anything that was seen, so nobody knows.
    pub risk: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    pub verdict: Verdict,
    pub watched_ms: u64,
    pub cpu: Advised,
    pub memory: Advised,
    /// Killed at its memory limit: counted, each half a day later.
    pub kills: f64,
}

impl Advice {
    /// How much is known, from 0 to 1: half after a day.
    pub fn confidence(&self) -> f64 {
        let days = self.watched_ms as f64 / HALF_LIFE_MS as f64;
        days / (1.0 + days)
    }
}

/// For a task of a job with these limits.
pub fn advise(history: &JobHistory, limit: &Resources, wish: Wish, now_ms: u64) -> Advice {
    let watched_ms = history.watched_ms();
    let days = watched_ms as f64 / HALF_LIFE_MS as f64;
    let margin = 1.0 + MARGIN + (DOUBT / days.max(1e-6)).min(MOST_DOUBT);
    let seen = history.cpu.most() > 0.0 || history.memory.most() > 0.0;
    let enough = seen && watched_ms >= wish.enough_ms;
    let cpu = cpu(history, limit.get(CPU), wish.risk, margin, enough, now_ms);
    let memory = memory(history, limit.get(MEMORY), wish.risk, margin, enough, now_ms);
    let changes = cpu.advised != cpu.limit || memory.advised != memory.limit;
    let verdict = match (enough, changes) {
        (false, _) => Verdict::NotEnough,
        (true, false) => Verdict::Keep,
        (true, true) => Verdict::Change,
    };
    Advice { verdict, watched_ms, cpu, memory, kills: history.kills(now_ms) }
}

fn cpu(history: &JobHistory, limit: u64, risk: f64, margin: f64, enough: bool, now_ms: u64) -> Advised {
    let held_back = |limit: u64| history.cpu.share_above(limit as f64);
    // The kernel knows of bursts that are shorter than what is measured.
    let risk_now = history.cpu.share_above(limit as f64 * AT_LIMIT).max(history.held_back_share(now_ms));
    let used = smallest(history.cpu.most(), |amount| history.cpu.share_above(amount) <= risk);
    let mut advised = round_cpu(used * margin);
    if risk_now > risk {
        // What it would use beyond its limit is not known.
        let step = if risk_now > 0.5 { 2.0 } else { 1.5 };
        advised = advised.max(round_cpu(limit as f64 * step));
    }
    let advised = settle(limit, advised, risk_now > risk, enough && history.cpu.most() > 0.0);
    let risk = match advised > limit {
        true => None,
        false if advised == limit => Some(risk_now),
        false => Some(held_back(advised)),
    };
    let known = history.cpu.most() > 0.0;
    let (risk_now, risk) = (known.then_some(risk_now), risk.filter(|_| known));
    Advised { limit, advised, used: used as u64, risk_now, risk }
}

fn memory(history: &JobHistory, limit: u64, risk: f64, margin: f64, enough: bool, now_ms: u64) -> Advised {
    let most = history.memory.most();
    let peaks = Peaks {
        history,
        most,
        spread: history.memory.spread().max(LEAST_SPREAD),
        windows: history.memory.total(now_ms),
    };
    let risk_now = peaks.killed_in_a_day(limit as f64);
    let mut safe = most;
    while peaks.killed_in_a_day(safe) > risk && safe < 64.0 * most {
        safe *= 1.01;
    }
    let wanted = round_memory(safe.max(most * margin));
    let advised = settle(limit, wanted, risk_now > risk, enough && most > 0.0);
    let risk = (most > 0.0).then(|| peaks.killed_in_a_day(advised as f64));
    let risk_now = (most > 0.0).then_some(risk_now);
    Advised { limit, advised, used: most as u64, risk_now, risk }
}

/// Of the memory that a task used at most in each window.
struct Peaks<'a> {
    history: &'a JobHistory,
    most: f64,
    spread: f64,
    /// How many of them were seen, those of before counting less.
    windows: f64,
}

impl Peaks<'_> {
    /// The probability that one of a day's peaks is higher than the limit. Half a peak that was not seen is counted beyond all
    /// others; how far beyond is likely goes by how far they are from each other.
    fn killed_in_a_day(&self, limit: f64) -> f64 {
        if self.most <= 0.0 || limit <= 0.0 {
            return 0.0;
        }
        let seen = self.history.memory.share_above(limit) * self.windows;
        let beyond = (limit / self.most).ln().max(0.0) / self.spread;
        let share = (seen + 0.5 * (-beyond).exp()) / (self.windows + 1.0);
        1.0 - (1.0 - share.min(1.0)).powf(HALF_LIFE_MS as f64 / WINDOW_MS as f64)
    }
}

/// The limit stays unless it is to be much lower, or carries too much risk.
fn settle(limit: u64, advised: u64, risky: bool, known: bool) -> u64 {
    let lower = (advised as f64) < limit as f64 * (1.0 - WORTH);
    let higher = advised > limit && risky;
    if known && limit > 0 && (lower || higher) { advised } else { limit }
}

/// The smallest amount up to `most` that will do, within a hundredth.
fn smallest(most: f64, will_do: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, most);
    while high - low > (most / 1000.0).max(0.5) {
        let middle = (low + high) / 2.0;
        if will_do(middle) { high = middle } else { low = middle }
    }
    high
}

/// Up to what people would write.
fn round_cpu(milli: f64) -> u64 {
    let step = match milli {
        m if m < 100.0 => 5,
        m if m < 1000.0 => 10,
        m if m < 4000.0 => 50,
        _ => 100,
    };
    (milli.max(LEAST[0] as f64) as u64).next_multiple_of(step)
}

fn round_memory(bytes: f64) -> u64 {
    const MIB: u64 = 1 << 20;
    let step = match bytes as u64 / MIB {
        0..256 => MIB,
        256..4096 => 16 * MIB,
        _ => 256 * MIB,
    };
    (bytes.max(LEAST[1] as f64) as u64).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;
    const MIB: f64 = 1048576.0;
    const WISH: Wish = Wish { risk: 0.01, enough_ms: HOUR };

    /// A job watched for some hours: what its CPU is of the time, and the peaks of memory, one after the other.
    fn watched(hours: u64, cpu: &[(f64, f64)], peaks_mib: &[f64]) -> JobHistory {
        let mut history = JobHistory::default();
        let start = NOW - hours * HOUR;
        for minute in 0..=hours * 60 {
            let at = start + minute * 60_000;
            history.watched(at, 60_000);
            cpu.iter().for_each(|(milli, share)| history.cpu.add(*milli, 60.0 * share, at));
            if minute % 10 == 9 {
                let peak = peaks_mib[(minute / 10) as usize % peaks_mib.len()];
                history.memory.add(peak * MIB, 1.0, at);
            }
        }
        history
    }

    /// What is said, in a line.
    fn said(history: &JobHistory, limit_milli: u64, limit_mib: u64, wish: Wish) -> String {
        let limit = Resources::new(limit_milli, limit_mib << 20);
        let advice = advise(history, &limit, wish, NOW);
        let percent = |risk: f64| format!("{:.2} %", 100.0 * risk);
        let one = |a: &Advised, unit: u64| {
            let risk = |risk: Option<f64>| risk.map_or("unknown".into(), percent);
            format!("{} -> {} ({} -> {})", a.limit / unit, a.advised / unit, risk(a.risk_now), risk(a.risk))
        };
        format!("{:?}: cpu {}, memory {}", advice.verdict, one(&advice.cpu, 1), one(&advice.memory, 1 << 20))
    }

    #[test]
    fn advice_as_golden_text() {
        let idle = [(20.0, 0.9), (90.0, 0.1)];
        let steady = [60.0, 61.0, 60.0];
        let cases = [
            ("far too much of both", said(&watched(48, &idle, &steady), 1000, 512, WISH)),
            ("after an hour the margin is wide", said(&watched(1, &idle, &steady), 1000, 512, WISH)),
            ("not enough", said(&watched(0, &idle, &steady), 1000, 512, WISH)),
            ("it fits", said(&watched(48, &idle, &steady), 115, 72, WISH)),
            (
                "more risk, less CPU",
                said(
                    &watched(48, &[(20.0, 0.97), (90.0, 0.03)], &steady),
                    1000,
                    512,
                    Wish { risk: 0.05, ..WISH },
                ),
            ),
            (
                "often at its CPU limit",
                said(&watched(48, &[(100.0, 0.2), (50.0, 0.8)], &steady), 100, 72, WISH),
            ),
            ("always at it", said(&watched(48, &[(100.0, 1.0)], &steady), 100, 72, WISH)),
            ("near its memory limit", said(&watched(48, &idle, &[60.0, 62.0, 63.5]), 115, 64, WISH)),
            ("peaks that differ", said(&watched(48, &idle, &[20.0, 60.0, 35.0, 28.0]), 115, 512, WISH)),
            ("never measured", said(&JobHistory::default(), 100, 64, WISH)),
            (
                "never measured, though any history would do",
                said(&JobHistory::default(), 100, 64, Wish { enough_ms: 0, ..WISH }),
            ),
        ];
        let text: String = cases.iter().map(|(name, said)| format!("{name}: {said}\n")).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/advice.txt");
        if std::env::var_os("UPDATE").is_some() {
            assert!(std::fs::write(path, &text).is_ok(), "{path}");
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
    }

    #[test]
    fn who_was_killed_gets_more_memory() {
        let mut history = watched(24, &[(20.0, 1.0)], &[60.0]);
        let before = advise(&history, &Resources::new(25, 72 << 20), WISH, NOW);
        history.memory.add(72.0 * 1.2 * MIB, 1.0, NOW);
        history.killed(NOW);
        let after = advise(&history, &Resources::new(25, 72 << 20), WISH, NOW);
        assert_eq!((before.verdict, after.verdict), (Verdict::Keep, Verdict::Change));
        assert!(after.memory.advised > 87 << 20 && after.kills == 1.0, "{after:?}");
        assert!(
            after.memory.risk_now.is_some_and(|risk| risk > 0.5)
                && after.memory.risk.is_some_and(|risk| risk <= 0.01),
            "{after:?}"
        );
    }

    #[test]
    fn who_is_held_back_in_short_bursts_gets_more_cpu() {
        let mut history = watched(24, &[(50.0, 1.0)], &[60.0]);
        history.held_back(0.3 * history.cpu.total(NOW), NOW);
        let advice = advise(&history, &Resources::new(100, 72 << 20), WISH, NOW);
        assert_eq!((advice.cpu.advised, advice.cpu.risk), (150, None), "{advice:?}");
        assert!(advice.cpu.risk_now.is_some_and(|risk| (risk - 0.3).abs() < 1e-6), "{advice:?}");
    }

    #[test]
    fn what_is_advised_once_is_kept() {
        let history = watched(48, &[(20.0, 0.9), (90.0, 0.1)], &[60.0, 61.0]);
        let first = advise(&history, &Resources::new(1000, 512 << 20), WISH, NOW);
        let limit = Resources::new(first.cpu.advised, first.memory.advised);
        assert_eq!(advise(&history, &limit, WISH, NOW).verdict, Verdict::Keep);
    }
}
