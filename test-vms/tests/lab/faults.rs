//! Cables cut, packets lost, bandwidth limited.

use crate::bench::Bare;

#[test]
fn a_cut_is_between_two_sets_and_healed() {
    let lab = Bare::up("cut", 4);
    lab.reaches("h1", "h3");
    lab.reaches("h3", "h1");
    lab.cut(&["h1", "h2"], &["h3"], false).unwrap();
    for (a, b) in [("h1", "h3"), ("h2", "h3")] {
        lab.silent(a, b);
        lab.silent(b, a);
    }
    for (a, b) in [("h1", "h2"), ("h3", "h4"), ("h4", "h1")] {
        lab.reaches(a, b);
        lab.reaches(b, a);
    }
    // A second one adds up, and both are undone.
    lab.cut(&["h4"], &["h1"], true).unwrap();
    lab.silent("h4", "h1");
    lab.reaches("h1", "h4");
    lab.silent("h1", "h3");
    lab.heal().unwrap();
    for (a, b) in [("h1", "h3"), ("h3", "h2"), ("h4", "h1")] {
        lab.reaches(a, b);
    }
    let refused = lab.cut(&["h1"], &["h5"], false).unwrap_err().to_string();
    assert!(refused.contains("has no host `h5`"), "{refused}");
}

#[test]
fn a_cut_outlasts_a_power_loss() {
    let lab = Bare::up("cut-off", 2);
    lab.cut(&["h1"], &["h2"], false).unwrap();
    lab.crash("h2").unwrap();
    lab.power("h2", None).unwrap();
    lab.silent("h1", "h2");
    lab.heal().unwrap();
    lab.reaches("h1", "h2");
}

#[test]
fn a_share_of_the_packets_is_lost() {
    let lab = Bare::up("loss", 2);
    assert_eq!(lab.arrive("h1", "h2", 1000, 1000), 1000);
    lab.loss("h2", 50.0).unwrap();
    // 500 are expected; 400 or 600 is more than six standard deviations away.
    let arrived = lab.arrive("h1", "h2", 1000, 400);
    assert!((400..=600).contains(&arrived), "{arrived}");
    lab.loss("h2", 100.0).unwrap();
    assert_eq!(lab.arrive("h2", "h1", 20, 0), 0);
    lab.loss("h2", 0.0).unwrap();
    assert_eq!(lab.arrive("h1", "h2", 1000, 1000), 1000);
    assert!(lab.loss("h2", 101.0).is_err());
}

#[test]
fn bandwidth_is_limited_in_both_directions() {
    let lab = Bare::up("rate", 2);
    lab.rate("h2", 1).unwrap();
    assert!(lab.says("h2", "tc qdisc show dev eth0").contains("rate 1Mbit"));
    // A bucket of 64 KiB and a queue of 50 ms hold less than a tenth of this, and it takes eight seconds to pass.
    let sent = 1000;
    let arrived = burst(&lab, "h1", "h2", sent);
    assert!(arrived < sent / 2, "{arrived}");
    let arrived = burst(&lab, "h2", "h1", sent);
    assert!(arrived < sent / 2, "{arrived}");
    lab.rate("h2", 0).unwrap();
    assert!(!lab.says("h2", "tc qdisc show dev eth0").contains("tbf"));
}

/// How many of so many packets of 1000 bytes, sent at once, the other's card receives.
fn burst(lab: &Bare, from: &str, to: &str, packets: u64) -> u64 {
    let received = || -> u64 {
        lab.says(to, "sed -n 's/^ *eth0: *[0-9]* *\\([0-9]*\\).*/\\1/p' /proc/self/net/dev").parse().unwrap()
    };
    let before = received();
    lab.send(from, to, packets, 1000);
    received() - before
}
