//! Volumes.

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
    units::bytes,
};

pub(crate) fn volumes(list: &Value) -> String {
    let mut table = Table::new(&["TASK", "VOLUMES", ">SIZE", "NODE"]);
    for item in items(list) {
        let task = format!("{}/{}/{}", field(item, "owner"), field(item, "job"), item["index"]);
        let names = item["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names: Vec<String> = names.map(|name| shown(name).into_owned()).collect();
        let size = item["bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes);
        let state = field(item, "state");
        let node = match state.as_str() {
            "alive" => field(item, "node"),
            state => format!("{} ({state})", field(item, "node")),
        };
        table.row(Look::of(&state), [task, names.join(", "), size, node]);
    }
    table.render("no volumes") + &caveats(list)
}

/// What `volume rm` removed, and where it may not have.
pub(crate) fn volumes_removed(done: &Value) -> String {
    let mut text = String::new();
    for item in items(done) {
        let names = item["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names: Vec<String> = names.map(|name| shown(name).into_owned()).collect();
        let freed = item["freed_bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes);
        text.push_str(&format!("removed {} from {}, {freed}\n", names.join(", "), field(item, "node")));
    }
    text + &caveats(done)
}
