//! How policies of overcommitment did on a trace.

use serde_json::Value;

use super::{
    field, items,
    table::{Look, Table},
};

pub(crate) fn overcommit(list: &Value) -> String {
    let mut table = Table::new(&["RESOURCE", "POLICY", ">SAVED", ">TOO LOW", ">MISSED", ">PREDICTIONS"]);
    for item in items(list) {
        let percent = |name: &str, digits: usize| {
            let share = item[name].as_f64().unwrap_or_default();
            format!("{:.digits$} %", 100.0 * share)
        };
        let look = match item["policy"].as_str() {
            // They know the future.
            Some("const" | "oracle") => Look::Past,
            _ => Look::Plain,
        };
        let saved = percent("savings_ratio", 1);
        let harm = [percent("violation_rate", 2), percent("violation_severity", 2)];
        let [too_low, missed] = harm;
        let cells = [field(item, "resource"), field(item, "policy"), saved, too_low, missed];
        table.row(look, cells.into_iter().chain([field(item, "samples")]));
    }
    table.render("no predictions")
}
