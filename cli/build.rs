//! The program begins where `waiter` says: see there.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Wl,-e,covey_entry");
    println!("cargo::rerun-if-changed=build.rs");
}
