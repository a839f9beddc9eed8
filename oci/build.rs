//! Programs of this crate, which are its examples, begin where `waiter` says.

fn main() {
    println!("cargo::rustc-link-arg-examples=-Wl,-e,covey_entry");
    println!("cargo::rerun-if-changed=build.rs");
}
