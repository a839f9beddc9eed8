//! Users and what they may do.

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
};

pub(crate) fn users(list: &Value) -> String {
    let mut table = Table::new(&["USER", "ROLE", "SINCE", "RIGHTS"]);
    for user in items(list) {
        let rights = match field(user, "role").as_str() {
            "admin" => "all".to_owned(),
            _ => rights(user),
        };
        table.row(Look::Plain, [field(user, "name"), field(user, "role"), field(user, "created"), rights]);
    }
    table.render("nobody has logged in; `covey token --role user --name NAME` lets somebody in")
        + &caveats(list)
}

pub(crate) fn granted(user: &Value) -> String {
    let already = if user["changed"] == false { " already" } else { "" };
    format!("{} has{already} the rights: {}", field(user, "name"), rights(user))
}

fn rights(user: &Value) -> String {
    let rights: Vec<_> =
        user["grants"].as_array().into_iter().flatten().filter_map(Value::as_str).map(shown).collect();
    if rights.is_empty() { "-".to_owned() } else { rights.join(" ") }
}
