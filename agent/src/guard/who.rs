//! Who gives way when memory or disk is short: free before batch; within a band the furthest above its reservation first, then
//! the youngest; no more than it takes; never production. Of disk nothing is reserved for anybody: there it is who has most
//! of it. Figures in, decisions out: no files, no clock.

use std::collections::BTreeMap;

use placement::{
    job::Band,
    obstacle::amount,
    resources::{DISK, MEMORY},
};

use crate::event::{Event, RunId};

/// What was killed is gone by then, or does not go; and what it has written, which is deleted file by file.
const GONE_MS: u64 = 1_000;
const DELETED_MS: u64 = 10_000;

/// Memory or disk that somebody has to give back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shortage {
    /// [`MEMORY`] or [`DISK`].
    pub(crate) what: &'static str,
    /// Bytes of it.
    pub(crate) need: u64,
    /// There is no time for a grace.
    pub(crate) hurry: bool,
    /// For people: what is short, and by how much.
    pub(crate) why: String,
}

/// A task that may have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) run: RunId,
    pub(crate) band: Band,
    /// Of what is short: in use, and what it is believed to need.
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    /// When it was started: monotonic.
    pub(crate) since_ms: u64,
}

impl Tenant {
    /// More than it is believed to need.
    fn above(&self) -> u64 {
        self.used.saturating_sub(self.reserved)
    }
}

/// A task that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) run: RunId,
    /// At once, without its grace.
    pub(crate) hard: bool,
    /// What it is for, and what it had of that, in bytes.
    pub(crate) what: &'static str,
    pub(crate) used: u64,
    /// For people.
    pub(crate) why: String,
}

impl Eviction {
    pub(crate) fn event(self) -> Event {
        Event::Evict { run: self.run, hard: self.hard, what: self.what, used: self.used, why: self.why }
    }
}

#[derive(Debug)]
struct Going {
    bytes: u64,
    since_ms: u64,
    hard: bool,
}

/// Remembers who was told to go.
#[derive(Debug, Default)]
pub(crate) struct Chooser {
    going: BTreeMap<RunId, Going>,
}

impl Chooser {
    /// Who has to go. Those who are going already are given the time that it takes.
    pub(crate) fn choose(&mut self, at_ms: u64, shortage: &Shortage, tenants: &[Tenant]) -> Vec<Eviction> {
        self.going.retain(|run, _| tenants.iter().any(|tenant| tenant.run == *run));
        let gone_ms = if shortage.what == DISK { DELETED_MS } else { GONE_MS };
        let mut need = shortage.need;
        let mut out = Vec::new();
        for (run, going) in &mut self.going {
            let late = going.hard && at_ms >= going.since_ms + gone_ms;
            if shortage.hurry && !going.hard {
                (going.hard, going.since_ms) = (true, at_ms);
                let why = format!("{}: there is no time left for its grace", shortage.why);
                out.push(Eviction { run: *run, hard: true, what: shortage.what, used: going.bytes, why });
            }
            if !late {
                need = need.saturating_sub(going.bytes);
            }
        }
        for band in [Band::Free, Band::Batch] {
            if need == 0 {
                break;
            }
            let here = tenants.iter().filter(|t| t.band == band && t.used > 0);
            let mut order: Vec<&Tenant> = here.filter(|t| !self.going.contains_key(&t.run)).collect();
            order.sort_by_key(|t| std::cmp::Reverse((t.above(), t.since_ms, t.run)));
            let chosen = fewest(need, order);
            for tenant in chosen {
                need = need.saturating_sub(tenant.used);
                let bytes = tenant.used;
                self.going.insert(tenant.run, Going { bytes, since_ms: at_ms, hard: shortage.hurry });
                let used = amount(shortage.what, tenant.used);
                let over = match tenant.above() {
                    above if above > 0 && shortage.what == MEMORY => {
                        format!(", {} more than reserved for it", amount(MEMORY, above))
                    }
                    _ => String::new(),
                };
                let why = format!("{}; it used {used}{over}, in band {band}", shortage.why);
                let (run, hard, what) = (tenant.run, shortage.hurry, shortage.what);
                out.push(Eviction { run, hard, what, used: bytes, why });
            }
        }
        out
    }
}

/// The first of them that have as much. Who keeps to his reservation is spared where the others make up for him.
fn fewest(need: u64, order: Vec<&Tenant>) -> Vec<&Tenant> {
    let mut sum = 0_u64;
    let mut chosen = Vec::new();
    for tenant in order {
        if sum >= need {
            break;
        }
        sum += tenant.used;
        chosen.push(tenant);
    }
    let mut by_size: Vec<&Tenant> = chosen.iter().copied().filter(|tenant| tenant.above() == 0).collect();
    by_size.sort_by_key(|tenant| tenant.used);
    for tenant in by_size {
        if sum - tenant.used >= need {
            sum -= tenant.used;
            chosen.retain(|other| other.run != tenant.run);
        }
    }
    chosen
}

#[cfg(test)]
#[path = "who_tests.rs"]
mod tests;
