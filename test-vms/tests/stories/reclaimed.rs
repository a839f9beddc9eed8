use crate::cell::{Cell, names};

const MIB: u64 = 1 << 20;

/// Memory runs short on a machine: what is free of charge goes first, and runs elsewhere. Nobody else notices.
#[test]
fn the_free_band_gives_way_and_runs_elsewhere() {
    let cell = Cell::of_small("reclaimed", 2, 480 * MIB);
    cell.covey("h1", &["drain", "h2"]).unwrap();
    // Full on paper, and so far only there. Production comes last: nobody is in its way.
    for (name, band, memory) in [("sums", "batch", 110), ("rest", "free", 110), ("web", "production", 256)] {
        let keys = format!("cpu = \"50m\"\nmemory = \"{memory}MiB\"");
        cell.run("h1", &cell.of_band(name, band, &keys));
    }
    let here = names(&["h1"]);
    let before = ["web", "sums", "rest"].map(|name| cell.running("h1", name, 1, &here)[&0].clone());
    cell.covey("h1", &["undrain", "h2"]).unwrap();
    let [web, sums, rest] = &before;
    cell.asks(sums, "/alloc?mib=95");
    cell.asks(rest, "/alloc?mib=95");
    // Within its limit, so whatever it takes is its own.
    let kept = cell.asks(web, "/alloc?mib=240");
    assert!(kept.contains("240 MiB kept"), "{kept}");

    let moved = cell.running("h1", "rest", 1, &names(&["h2"]))[&0].clone();
    assert!(moved.generation > rest.generation, "{rest:?} {moved:?}");
    for was in [web, sums] {
        let name = if was == web { "web" } else { "sums" };
        assert_eq!(&cell.running("h1", name, 1, &here)[&0], was, "{name} has not noticed");
    }
    let reclaimed = |job: &str| {
        let events = cell.json("h1", &["events", "--job", job]).unwrap();
        let of_kind = |event: &&serde_json::Value| event["kind"] == "reclaimed";
        events["items"].as_array().unwrap().iter().filter(of_kind).count()
    };
    assert_eq!(["web", "sums", "rest"].map(reclaimed), [0, 0, 1]);
}
