#![allow(clippy::unwrap_used)]

use placement::ids::{Generation, TaskKey, Uid};

use super::*;

const MIB: u64 = 1 << 20;
const NODE: Node = Node { capacity: 4096 * MIB, prod_limits: 2048 * MIB };

fn memory(free: u64, prod: u64, spare: u64) -> Memory {
    Memory { free: free * MIB, prod: prod * MIB, spare: spare * MIB, ..Memory::default() }
}

fn run(index: u32) -> RunId {
    let key = TaskKey { uid: Uid { cell: 1, index: 7 }, index };
    RunId { key, generation: Generation { cell: 1, activation: 1, seq: 1 }, run: 0 }
}

/// Band, use and reservation in MiB, start.
fn tenants(list: &[(Band, u64, u64, u64)]) -> Vec<Tenant> {
    let of = |(index, &(band, used, reserved, since_ms)): (usize, &(Band, u64, u64, u64))| Tenant {
        run: run(index as u32),
        band,
        used: used * MIB,
        reserved: reserved * MIB,
        since_ms,
    };
    list.iter().enumerate().map(of).collect()
}

fn short_of(mib: u64) -> Shortage {
    Shortage { need: mib * MIB, hurry: true, why: "short".into() }
}

fn chosen(need: u64, list: &[(Band, u64, u64, u64)]) -> Vec<u32> {
    let evictions = Decider::default().choose(0, &short_of(need), &tenants(list));
    evictions.into_iter().map(|eviction| eviction.run.key.index).collect()
}

#[test]
fn free_goes_before_batch_and_production_never() {
    use Band::*;
    let all = [(Production, 900, 1, 9), (Batch, 500, 1, 8), (Free, 100, 100, 1), (Monitoring, 300, 1, 9)];
    assert_eq!(chosen(50, &all), [2]);
    // All that free has is not enough: it goes all the same, and then batch.
    assert_eq!(chosen(150, &all), [2, 1]);
    assert_eq!(chosen(100_000, &all), [2, 1]);
    assert_eq!(chosen(100, &all[..1]), [] as [u32; 0]);
}

#[test]
fn the_furthest_above_its_reservation_goes_first_and_then_the_youngest() {
    use Band::*;
    let all = [(Batch, 300, 250, 5), (Batch, 200, 100, 1), (Batch, 100, 100, 3), (Batch, 100, 100, 7)];
    assert_eq!(chosen(10, &all), [1]);
    assert_eq!(chosen(300, &all), [1, 0]);
    assert_eq!(chosen(600, &all), [1, 0, 3]);
    assert_eq!(chosen(700, &all), [1, 0, 3, 2]);
}

#[test]
fn the_fewest_that_free_enough() {
    use Band::*;
    // Young and small ones would not help: the large one has to go in any case.
    let all = [(Free, 5, 5, 9), (Free, 6, 6, 8), (Free, 1000, 1000, 1), (Free, 0, 9, 10)];
    assert_eq!(chosen(200, &all), [2]);
    assert_eq!(chosen(1005, &all), [1, 2]);
    // Of a higher band nobody makes up for a lower one.
    assert_eq!(chosen(20, &[(Free, 5, 5, 9), (Batch, 1000, 10, 1)]), [0, 1]);
}

#[test]
fn nobody_else_goes_while_what_was_killed_is_going() {
    use Band::*;
    let all = tenants(&[(Free, 100, 100, 1), (Free, 100, 100, 2)]);
    let mut decider = Decider::default();
    assert_eq!(decider.choose(0, &short_of(80), &all).len(), 1);
    assert_eq!(decider.choose(100, &short_of(80), &all), []);
    // It should have gone by now.
    assert_eq!(decider.choose(1_000, &short_of(80), &all).len(), 1);
    // It has gone, and more is needed.
    let mut decider = Decider::default();
    decider.choose(0, &short_of(80), &all);
    assert_eq!(decider.choose(100, &short_of(10), &all[..1])[0].run, run(0));
}

#[test]
fn a_grace_ends_when_there_is_no_time_left_for_it() {
    let all = tenants(&[(Band::Free, 100, 60, 1)]);
    let mut decider = Decider::default();
    let slow = Shortage { hurry: false, ..short_of(50) };
    let asked = decider.choose(0, &slow, &all);
    assert!(!asked[0].hard);
    assert_eq!(asked[0].why, "short; it used 100MiB, 40MiB more than reserved for it, in band free");
    assert_eq!(decider.choose(5_000, &slow, &all), []);
    let killed = decider.choose(5_050, &short_of(50), &all);
    assert!(killed.len() == 1 && killed[0].hard && killed[0].run == run(0));
    assert_eq!(decider.choose(5_100, &short_of(50), &all), []);
}

#[test]
fn the_ceiling_leaves_the_room_that_is_kept_and_free_reaches_its_own_first() {
    let mut decider = Decider::default();
    let reading = Memory { lowest: 300 * MIB, ..memory(1000, 500, 800) };
    let step = decider.look(0, &reading, &NODE);
    // A fiftieth of the capacity is kept.
    let kept = NODE.capacity / 50;
    assert_eq!(decider.headroom(&reading, &NODE), kept);
    assert_eq!(step.ceiling.0, 1800 * MIB - kept);
    assert_eq!(step.ceiling.1, 1300 * MIB - kept - (16 << 20));
    assert_eq!((step.shortage, step.pause_ms), (None, PLENTY_MS));
    assert_eq!(decider.look(50, &memory(300, 500, 800), &NODE).pause_ms, CALM_MS);
    // Nothing runs that could be interrupted.
    assert_eq!(decider.look(100, &memory(10, 4000, 0), &NODE).shortage, None);
}

#[test]
fn more_is_kept_while_production_grows() {
    let mut decider = Decider::default();
    decider.look(0, &memory(1000, 500, 800), &NODE);
    let base = decider.headroom(&memory(1000, 500, 800), &NODE);
    // 50 MiB in 100 ms: half a second of that.
    let step = decider.look(100, &memory(950, 550, 800), &NODE);
    assert_eq!(decider.headroom(&memory(950, 550, 800), &NODE), base + 250 * MIB);
    assert_eq!(step.shortage, None);
    // It takes from the room: there is less than is kept, and it will be gone soon.
    let step = decider.look(200, &memory(200, 600, 1500), &NODE);
    assert!(step.shortage.is_some_and(|s| s.hurry && s.need > 130 * MIB));
    // Not more than its limits allow.
    let full = memory(950, 2040, 800);
    assert_eq!(decider.headroom(&full, &NODE), base + 8 * MIB);
    // And not for ever.
    decider.look(3_000, &memory(950, 600, 800), &NODE);
    assert_eq!(decider.headroom(&memory(950, 600, 800), &NODE), base);
}

#[test]
fn a_slow_shortage_leaves_time_for_a_grace_and_a_fast_one_does_not() {
    let mut decider = Decider::default();
    decider.look(0, &memory(61, 500, 800), &NODE);
    let slow = decider.look(1_000, &memory(60, 501, 800), &NODE).shortage.unwrap();
    assert!(!slow.hurry, "{slow:?}");
    assert_eq!(slow.why, "60MiB of memory are free, of 82MiB that are kept for production");
    let fast = decider.look(1_100, &memory(50, 511, 800), &NODE).shortage.unwrap();
    assert!(fast.hurry);
}

#[test]
fn who_waits_at_the_ceiling_waits_for_a_moment_only() {
    let mut decider = Decider::default();
    let waiting = Memory { waiting: true, ..memory(82, 500, 800) };
    assert_eq!(decider.look(0, &waiting, &NODE).shortage, None);
    let shortage = decider.look(60, &waiting, &NODE).shortage.unwrap();
    assert!(shortage.hurry && shortage.need > 0);
    assert_eq!(decider.look(90, &memory(82, 500, 800), &NODE).shortage, None);
}

#[test]
fn production_that_waits_for_memory_is_given_some() {
    let stalled = |at_ms: u64, us, free| Memory { stalled_us: us, ..memory(free, 500, 800 + at_ms % 2) };
    let mut decider = Decider::default();
    decider.look(0, &stalled(0, 1_000_000, 150), &NODE);
    decider.look(500, &stalled(500, 1_000_000, 150), &NODE);
    assert_eq!(decider.look(1_000, &stalled(1_000, 1_050_000, 150), &NODE).shortage, None);
    assert!(decider.look(1_500, &stalled(1_500, 1_200_000, 150), &NODE).shortage.is_some());
    // At its own limit it waits too, while the node has enough.
    assert_eq!(decider.look(2_000, &stalled(2_000, 1_500_000, 1_000), &NODE).shortage, None);
}
