//! What a node has to give, now: machines and the cgroups above an agent change while it runs.

use std::path::Path;

use oci::cgroup::Tree;
use placement::resources::{CPU, DISK, MEMORY, Resources};

/// The least of the machine, of the agent's cgroup, and of `most`: what the operator says, who also may declare what
/// nobody can detect.
pub(crate) fn of(tree: &Tree, data: &Path, most: &Resources) -> Resources {
    let detected = tree.capacity();
    let mut capacity = Resources::new(detected.cpu_milli, detected.memory_bytes);
    capacity.0.extend(oci::disk::size(data).map(|size| (DISK.to_string(), size)));
    for (name, amount) in &most.0 {
        let least = match name.as_str() {
            CPU | MEMORY | DISK => capacity.get(name).min(*amount),
            _ => *amount,
        };
        capacity.set(name, least);
    }
    capacity
}
