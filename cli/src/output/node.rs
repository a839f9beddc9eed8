//! Nodes.

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
    units::{bytes, cpu},
};

pub(crate) fn nodes(list: &Value) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "ROLE",
        "ADDRESS",
        "COVEY",
        ">TASKS",
        ">CPU LIMITS",
        ">MEMORY LIMITS",
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
        let row = [
            field(node, "name"),
            shown_state,
            role.to_owned(),
            if address.is_empty() { "-".to_owned() } else { address },
            field(node, "version"),
            count(&node["tasks"]),
            share(node, "cpu_milli", cpu),
            share(node, "memory_bytes", bytes),
            labels(node),
        ];
        table.row(Look::of(&state), row);
    }
    table.render("no nodes") + &caveats(list)
}

/// A number, or a list to count.
fn count(tasks: &Value) -> String {
    match tasks {
        Value::Array(tasks) => tasks.len().to_string(),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    }
}

/// Sum of the limits / capacity.
fn share(node: &Value, resource: &str, unit: fn(u64) -> String) -> String {
    let amount = |of: &str| node[of][resource].as_u64().unwrap_or(0);
    format!("{} / {}", unit(amount("limits")), unit(amount("capacity")))
}

/// Without those that other columns tell, and without the processor's long name: `--json` has all.
fn labels(node: &Value) -> String {
    let labels: Vec<_> = node["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "cpu" | "cores" | "memory"))
        .map(|(name, value)| format!("{}={}", shown(name), shown(value.as_str().unwrap_or("?"))))
        .collect();
    labels.join(",")
}
