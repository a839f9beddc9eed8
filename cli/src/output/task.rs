//! Tasks.

use std::time::SystemTime;

use serde_json::Value;

use super::{
    caveats, field, items, job, shown,
    table::{Look, Table},
    units::{age, amount, bytes, cpu, ended},
    whose,
};

pub(crate) fn tasks(list: &Value, now: SystemTime) -> String {
    let tasks = items(list);
    tasks_of(tasks, now).render("no tasks") + &caveats(list)
}

pub(super) fn tasks_of(tasks: &[Value], now: SystemTime) -> Table {
    let mut table = Table::new(&[
        "TASK",
        "STATE",
        "HEALTH",
        "NODE",
        "PORTS",
        ">CPU",
        ">MEMORY",
        ">RESTARTS",
        ">VERSION",
        "SINCE",
        "REASON",
    ]);
    for task in tasks {
        let state = field(task, "state");
        let look = match (Look::of(&state), task["healthy"].as_bool()) {
            (Look::Plain, Some(false)) => Look::Bad,
            (look, _) => look,
        };
        let row = [
            whose(task, "job"),
            state,
            health(&task["healthy"]).to_owned(),
            field(task, "node"),
            ports(task),
            of_limit(task, "cpu_milli", cpu),
            of_limit(task, "memory_bytes", bytes),
            field(task, "restarts"),
            job::version(&task["version"]),
            age(&task["since"], now),
            reason(task).unwrap_or_default(),
        ];
        table.row(look, row);
    }
    table
}

/// One task in full.
pub(crate) fn task(task: &Value, now: SystemTime) -> String {
    let mut rows = vec![
        ("state", format!("{}, {}", field(task, "state"), age(&task["since"], now))),
        ("health", health(&task["healthy"]).to_owned()),
        ("node", field(task, "node")),
        ("pid", field(task, "pid")),
        ("ports", ports(task)),
        ("address", field(task, "address")),
        ("image", field(task, "image")),
        ("version", job::version(&task["version"])),
        ("generation", generation(&task["generation"])),
        ("restarts", field(task, "restarts")),
        ("cpu", of_limit(task, "cpu_milli", cpu)),
        ("memory", of_limit(task, "memory_bytes", bytes)),
    ];
    rows.extend(task["reason"].as_str().map(|why| ("reason", shown(why).into_owned())));
    rows.extend(ended(&task["exit"]).map(|how| ("last exit", how)));
    let mut text = format!("{}\n", whose(task, "job"));
    for (name, value) in rows.iter().filter(|(_, value)| value != "-") {
        text.push_str(&format!("  {name:<10}  {value}\n"));
    }
    text
}

/// Why a task is as it is, if there is something to say.
pub(super) fn reason(task: &Value) -> Option<String> {
    match task["reason"].as_str() {
        Some(reason) if !reason.is_empty() => Some(shown(reason).into_owned()),
        // The end of a run before this one is no reason for what it does now, but good to know.
        _ if task["state"] == "running" => ended(&task["exit"]).map(|how| format!("before: {how}")),
        _ => ended(&task["exit"]),
    }
}

fn health(healthy: &Value) -> &'static str {
    match healthy.as_bool() {
        Some(true) => "healthy",
        Some(false) => "unhealthy",
        None => "-",
    }
}

fn ports(task: &Value) -> String {
    let ports: Vec<_> = task["ports"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, number)| format!("{}={number}", shown(name)))
        .collect();
    if ports.is_empty() { "-".to_owned() } else { ports.join(",") }
}

fn generation(generation: &Value) -> String {
    let parts: Vec<_> = generation.as_array().into_iter().flatten().map(Value::to_string).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(".") }
}

/// `USED/LIMIT` of a resource.
fn of_limit(task: &Value, resource: &str, unit: fn(u64) -> String) -> String {
    let amount = |of: &str| amount(&task[of], resource, unit);
    format!("{} / {}", amount("usage"), amount("limit"))
}
