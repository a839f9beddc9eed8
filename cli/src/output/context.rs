//! Contexts.

use serde_json::Value;

use super::{
    field, items, shown,
    table::{Look, Table},
};

pub(crate) fn contexts(list: &Value) -> String {
    let mut table = Table::new(&["", "CONTEXT", "CELL", "AS", "ROLE", "UNTIL", "NODES"]);
    for context in items(list) {
        let mark = if context["current"] == true { "*" } else { "" };
        let nodes: Vec<_> =
            context["nodes"].as_array().into_iter().flatten().filter_map(Value::as_str).map(shown).collect();
        let (cell, look) = match &context["error"] {
            Value::Null => (field(context, "cell"), Look::Plain),
            why => (shown(why.as_str().unwrap_or("?")).into_owned(), Look::Bad),
        };
        let until = field(context, "until");
        let until = until.split('T').next().unwrap_or("-").to_owned();
        let row = [
            mark.to_owned(),
            field(context, "name"),
            cell,
            field(context, "principal"),
            field(context, "role"),
            until,
            if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") },
        ];
        table.row(look, row);
    }
    table.render("no contexts")
}
