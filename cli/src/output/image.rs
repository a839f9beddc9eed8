//! Images.

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
    units::bytes,
};

pub(crate) fn images(list: &Value) -> String {
    let mut table = Table::new(&["REFERENCE", "DIGEST", ">SIZE", "NODES"]);
    for image in items(list) {
        let digest = field(image, "digest");
        let short = digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12)).unwrap_or(&digest);
        let size = image["size_bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes);
        let nodes = texts(&image["nodes"]);
        let nodes = if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") };
        table.row(Look::Plain, [field(image, "reference"), short.to_owned(), size, nodes]);
    }
    let mut text =
        table.render("no images; `covey image load FILE` loads one, `covey image pull REF` pulls one");
    for image in items(list) {
        for trouble in texts(&image["trouble"]) {
            text.push_str(&format!("note: no copy of {} on {trouble}\n", field(image, "reference")));
        }
    }
    text + &caveats(list)
}

/// What `image rm` did, and where it may not have done it.
pub(crate) fn removed(done: &Value, reference: &str) -> String {
    format!("{} is removed\n", shown(reference)) + &caveats(done)
}

/// What `image prune` freed, and where.
pub(crate) fn pruned(done: &Value) -> String {
    let mut table = Table::new(&["NODE", ">FREED", "REMOVED"]);
    for node in items(done) {
        let images = texts(&node["images"]);
        let images = if images.is_empty() { "-".to_owned() } else { images.join(", ") };
        let freed = node["freed_bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes);
        table.row(Look::Plain, [field(node, "node"), freed, images]);
    }
    let mut text = table.render("no node answered\n");
    for node in items(done) {
        if let Some(trouble) = node["trouble"].as_str() {
            text.push_str(&format!("note: {}: {}\n", field(node, "node"), shown(trouble)));
        }
    }
    text + &caveats(done)
}

/// What `image login` and `logout` did, and where they may not have done it.
pub(crate) fn logged_in(done: &Value, what: &str) -> String {
    format!("{what} {} as {}\n", field(done, "registry"), field(done, "user")) + &caveats(done)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|text| shown(text).into_owned())
        .collect()
}
