#![allow(clippy::unwrap_used)]

use super::*;

const MIB: u64 = 1 << 20;
const NODE: Node = Node { capacity: 4096 * MIB, prod_limits: 2048 * MIB, alarmed: false };

fn memory(free: u64, prod: u64, spare: u64) -> Memory {
    Memory { free: free * MIB, prod: prod * MIB, spare: spare * MIB, ..Memory::default() }
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
fn looks_are_rare_where_the_kernel_tells_who_waits() {
    let alarmed = Node { alarmed: true, ..NODE };
    let pause = |free, spare, node| Decider::default().look(0, &memory(free, 500, spare), node).pause_ms;
    assert_eq!([pause(1500, 800, &NODE), pause(1500, 800, &alarmed)], [PLENTY_MS, ALARMED_MS]);
    assert_eq!([pause(1500, 0, &NODE), pause(1500, 0, &alarmed)], [IDLE_MS, ALARMED_MS]);
    // What can be gone before it is felt is looked at as often as ever.
    assert_eq!([pause(1000, 800, &NODE), pause(1000, 800, &alarmed)], [PLENTY_MS; 2]);
    assert_eq!([pause(100, 800, &NODE), pause(100, 800, &alarmed)], [CLOSE_MS; 2]);
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
