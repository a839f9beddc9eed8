//! How fast a death is noticed, and what that costs.
//!
//! A member that dies is probed by somebody after 0.4 s on average (each of N members probes one of the others every
//! 0.4 s), is suspected 0.4 s later, is declared dead when it has not answered for `suspicion` (1.1 s among 5, 1.6 s
//! among 50, 2.2 s among 1,000), and all know it two or three gossip rounds later: about three seconds in all. A probe
//! and its answer are some 90 bytes, so this costs 220 B/s whatever the size of the cell; half the period would cost
//! twice that and save half a second.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{Config, PeriodicParams};

/// The first datagram on a QUIC connection carries at most 1162 bytes.
pub(crate) const MAX_PACKET: usize = 1150;

/// One probe each. An agent that stands still for less than `suspicion` is not declared dead.
const PROBE: Duration = Duration::from_millis(400);
/// A LAN answers in one; a busy machine needs some more. What remains of `PROBE` is for the way through others.
const ANSWER: Duration = Duration::from_millis(160);
/// Nothing is sent when there is no news.
const GOSSIP: Duration = Duration::from_millis(100);
/// To the dead: how the two sides of a split find each other again.
const KNOCK: Duration = Duration::from_secs(3);
/// A dead member is remembered so long: it must not be revived by an old rumour.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);

/// Not woken for so long after the time asked for: it was we who stood still.
pub(crate) const STALL: Duration = Duration::from_millis(200);
/// Greetings while alone, and the check of what else is due.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// Between exchanges of everything known with one member.
pub(crate) const EXCHANGE: Duration = Duration::from_secs(10);
/// …when the last one brought news: there may be more.
pub(crate) const EXCHANGE_AGAIN: Duration = Duration::from_secs(1);
/// Members greeted at once while alone.
pub(crate) const GREETED: usize = 3;
/// While not alone, one known address in so many ticks that none of the living has: it may belong to another island.
pub(crate) const ISLAND_TICKS: u64 = 5;

/// For the word of the suspicion to reach the suspect (log N rounds of gossip), and its answer all others.
fn suspicion(members: usize) -> Duration {
    Duration::from_millis(700 + (500.0 * digits(members)) as u64)
}

/// Each of a rumour's hearers repeats it so often: more than log N, since packets are lost.
fn repeats(members: usize) -> NonZeroU8 {
    NonZeroU8::new(3 + (4.0 * digits(members)) as u8).unwrap_or(NonZeroU8::MIN)
}

fn digits(members: usize) -> f64 {
    (members.clamp(1, 1 << 20) as f64 + 1.0).log10()
}

/// foca's settings for a cell of so many members.
pub(crate) fn config(members: usize) -> Config {
    let each = |frequency, members| {
        Some(PeriodicParams {
            frequency,
            num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN),
        })
    };
    Config {
        probe_period: PROBE,
        probe_rtt: ANSWER,
        num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
        max_transmissions: repeats(members),
        suspect_to_down_after: suspicion(members),
        remove_down_after: Some(REMEMBER),
        max_packet_size: NonZeroUsize::new(MAX_PACKET).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        // The exchange of everything does this better.
        periodic_announce: None,
        periodic_announce_to_down_members: each(KNOCK, 2),
        periodic_gossip: each(GOSSIP, 3),
    }
}
