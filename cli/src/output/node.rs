//! Nodes.

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
    units::{amount, bytes, cpu},
};

/// Labels that every node detects: `--json` shows them.
const DETECTED: [&str; 7] = ["arch", "kernel", "os", "cgroup", "cpu", "cores", "memory"];

pub(crate) fn nodes(list: &Value) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "ROLE",
        "ADDRESS",
        ">TASKS",
        ">CPU USED",
        ">RESERVED",
        ">PEAK",
        ">LIMITS",
        ">ROOM",
        ">MEMORY USED",
        ">RESERVED",
        ">PEAK",
        ">LIMITS",
        ">ROOM",
        "COVEY",
        "LABELS",
    ]);
    for node in items(list) {
        let (state, admin) = (field(node, "state"), field(node, "admin"));
        let role = match (node["placer"] == true, node["voter"] == true) {
            (true, _) => "placer",
            (false, true) => "voter",
            (false, false) => "-",
        };
        let shown_state = if matches!(admin.as_str(), "active" | "-") {
            state.clone()
        } else {
            format!("{state}, {admin}")
        };
        let address = field(node, "addr");
        let mut row = vec![
            field(node, "name"),
            shown_state,
            role.to_owned(),
            if address.is_empty() { "-".to_owned() } else { address },
            count(&node["tasks"]),
        ];
        row.extend(figures(node, "cpu_milli", cpu));
        row.extend(figures(node, "memory_bytes", bytes));
        row.extend([field(node, "version"), labels(node)]);
        table.row(Look::of(&state), row);
    }
    table.render("no nodes") + &kept_free(items(list)) + &short(items(list)) + &caveats(list)
}

/// Why a node with room takes nothing.
fn short(nodes: &[Value]) -> String {
    let line = |node: &Value| {
        let kept = node["short"]["disk_bytes"].as_u64().filter(|_| node["state"] != "gone")?;
        let (name, kept) = (field(node, "name"), bytes(kept));
        Some(format!(
            "{name} has less than {kept} of disk left: until there is more, batch and free get nothing new there\n"
        ))
    };
    nodes.iter().filter_map(line).collect()
}

/// Why ROOM is less than what PEAK leaves.
fn kept_free(nodes: &[Value]) -> String {
    let kept =
        || nodes.iter().filter_map(|node| node["kept"]["memory_bytes"].as_u64()).filter(|kept| *kept > 0);
    let amount = match (kept().min(), kept().max()) {
        (Some(least), Some(most)) if least == most => bytes(least),
        (Some(least), Some(most)) => format!("{} to {}", bytes(least), bytes(most)),
        _ => return String::new(),
    };
    format!(
        "ROOM is what batch and free may ask for: the capacity less PEAK, less {amount} of memory that a node keeps free for prod\n"
    )
}

/// A number, or a list to count.
fn count(tasks: &Value) -> String {
    match tasks {
        Value::Array(tasks) => tasks.len().to_string(),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    }
}

/// What its tasks use; what they are believed to need now, and at most; the sum of their limits, of the capacity; and what a
/// task that is not prod may ask for.
fn figures(node: &Value, resource: &str, unit: fn(u64) -> String) -> [String; 5] {
    let amount = |of: &Value| amount(of, resource, unit);
    let limits = |of: &str| unit(node[of][resource].as_u64().unwrap_or(0));
    [
        amount(&node["usage"]),
        amount(&node["reserved"]),
        amount(&node["predicted"]),
        format!("{} of {}", limits("limits"), limits("capacity")),
        amount(&node["room"]["non_prod"]),
    ]
}

/// Those that people gave it.
fn labels(node: &Value) -> String {
    let labels: Vec<_> = node["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !DETECTED.contains(&name.as_str()))
        .map(|(name, value)| format!("{}={}", shown(name), shown(value.as_str().unwrap_or("?"))))
        .collect();
    labels.join(",")
}
