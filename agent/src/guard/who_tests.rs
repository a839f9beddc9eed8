#![allow(clippy::unwrap_used)]

use placement::{
    ids::{Generation, TaskKey, Uid},
    resources::DISK,
};

use super::*;

const MIB: u64 = 1 << 20;

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
    Shortage { what: MEMORY, need: mib * MIB, hurry: true, why: "short".into() }
}

fn chosen(need: u64, list: &[(Band, u64, u64, u64)]) -> Vec<u32> {
    let evictions = Chooser::default().choose(0, &short_of(need), &tenants(list));
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
    let mut chooser = Chooser::default();
    assert_eq!(chooser.choose(0, &short_of(80), &all).len(), 1);
    assert_eq!(chooser.choose(100, &short_of(80), &all), []);
    // It should have gone by now.
    assert_eq!(chooser.choose(1_000, &short_of(80), &all).len(), 1);
    // It has gone, and more is needed.
    let mut chooser = Chooser::default();
    chooser.choose(0, &short_of(80), &all);
    assert_eq!(chooser.choose(100, &short_of(10), &all[..1])[0].run, run(0));
}

#[test]
fn a_grace_ends_when_there_is_no_time_left_for_it() {
    let all = tenants(&[(Band::Free, 100, 60, 1)]);
    let mut chooser = Chooser::default();
    let slow = Shortage { hurry: false, ..short_of(50) };
    let asked = chooser.choose(0, &slow, &all);
    assert!(!asked[0].hard);
    assert_eq!(asked[0].why, "short; it used 100MiB, 40MiB more than reserved for it, in band free");
    assert_eq!(chooser.choose(5_000, &slow, &all), []);
    let killed = chooser.choose(5_050, &short_of(50), &all);
    assert!(killed.len() == 1 && killed[0].hard && killed[0].run == run(0));
    assert_eq!(chooser.choose(5_100, &short_of(50), &all), []);
}

#[test]
fn of_disk_who_has_most_goes_first_and_nothing_is_reserved() {
    use Band::*;
    let all = tenants(&[(Production, 900, 0, 9), (Free, 20, 0, 1), (Free, 70, 0, 2), (Batch, 500, 0, 3)]);
    let gone = Chooser::default().choose(0, &Shortage { what: DISK, ..short_of(50) }, &all);
    assert_eq!((gone.len(), gone[0].run, gone[0].what), (1, run(2), DISK));
    assert_eq!(gone[0].why, "short; it used 70MiB, in band free");
    let gone = Chooser::default().choose(0, &Shortage { what: DISK, ..short_of(100) }, &all);
    assert_eq!(gone.iter().map(|e| e.run).collect::<Vec<_>>(), [run(2), run(1), run(3)]);
}
