//! Logs of real containers: complete, bounded, with offsets that stay.

use oci::bundle::Stream;
use oci::container;
use oci::logs::{self, From};

use crate::world::World;

/// `yes` with numbered lines would be slow in a shell: a line's number follows from its offset, as all are equally long.
const LINE: &str = "0123456789abcde\n";

fn used(dir: &std::path::Path) -> u64 {
    // Not there before the first byte is.
    let segments = std::fs::read_dir(dir).into_iter().flatten();
    segments.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

#[test]
fn every_byte_is_kept_below_the_cap_and_both_streams_apart() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let running = world.run("both", script).start();
    running.wait();
    for stream in [Stream::Stdout, Stream::Stderr] {
        let expected: String = (0..2000)
            .map(|i| format!("{} {i}\n", if stream == Stream::Stdout { "out" } else { "err" }))
            .collect();
        let log = logs::read(&running.bundle.log(), stream, From::Offset(0), usize::MAX).unwrap();
        assert!(log.bytes == expected.as_bytes(), "{stream:?}");
    }
}

#[test]
fn a_follower_misses_nothing_that_it_is_not_told_of() {
    let world = World::new();
    let mut run = world.run("loud", &format!("yes {} | head -c 40000000", LINE.trim()));
    run.config.log_cap_bytes = 4 << 20;
    let running = run.start();
    let (dir, mut from, mut seen, mut dropped) = (running.bundle.log(), From::Offset(0), 0u64, 0u64);
    loop {
        let ended = running.live().is_none();
        let chunk = logs::read(&dir, Stream::Stdout, from, 1 << 20).unwrap();
        assert!(used(&dir) <= 4 << 20, "{}", used(&dir));
        dropped += chunk.dropped;
        assert_eq!(chunk.offset, seen + dropped);
        for (i, byte) in chunk.bytes.iter().enumerate() {
            assert_eq!(*byte, LINE.as_bytes()[(chunk.offset as usize + i) % LINE.len()]);
        }
        seen += chunk.bytes.len() as u64;
        from = chunk.next();
        if ended && chunk.bytes.is_empty() {
            break;
        }
    }
    assert_eq!(running.wait().code, Some(0));
    assert_eq!(seen + dropped, 40_000_000);
    let tail = logs::read(&dir, Stream::Stdout, From::Tail(3), usize::MAX).unwrap();
    assert_eq!((tail.offset, tail.bytes), (40_000_000 - 48, LINE.repeat(3).into_bytes()));
}

#[test]
fn output_after_the_first_process_is_not_waited_for() {
    let world = World::new();
    // The child is killed with the pid namespace; the last words are drained, the shim does not hang.
    let (end, said) = world.run("orphan", "sleep 1000 & echo last words; exit 0").finish();
    assert_eq!((end.code, said.as_str()), (Some(0), "last words\n"));
}

#[test]
fn a_full_disk_costs_log_bytes_and_nothing_else() {
    let world = World::new();
    let mut run = world.run("full", &format!("yes {} | head -c 8000000; echo end >&2; exit 5", LINE.trim()));
    run.config.run = "disk/full".into();
    run.config.cgroup = world.tree.placement(oci::cgroup::Band::Batch, "full");
    // The bundle is on a small file system of its own.
    let disk = world.dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &disk, Some("tmpfs"), flags, Some("size=2m")).unwrap();
    let running = run.start();
    let end = running.wait();
    let log = logs::read(&running.bundle.log(), Stream::Stdout, From::Offset(0), usize::MAX).unwrap();
    container::remove(&running.bundle).unwrap();
    nix::mount::umount(&disk).unwrap();
    assert_eq!(end.code, Some(5));
    assert!(end.log_bytes_lost > 5_000_000 && end.log_bytes_lost < 8_000_000, "{end:?}");
    assert!(log.bytes.len() > 100_000);
}
