//! Real containers: that they start, what they see, how they end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use world::World;

#[test]
fn hello() {
    let world = World::new();
    let (end, said) = world.run("hello", "echo hello $GREETING; id; hostname; pwd; exit 7").finish();
    assert_eq!(end.code, Some(7), "{said}");
    assert_eq!(said, "hello hi\nuid=0(root) gid=0(root)\nbox\n/\n");
}
