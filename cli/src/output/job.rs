//! Jobs.

use std::time::SystemTime;

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
    task::tasks_of,
    units::age,
    whose,
};

/// A version's number: `v3`.
pub(crate) fn version(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| format!("v{number}"))
}

pub(crate) fn jobs(list: &Value) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "KIND",
        "BAND",
        ">PRIORITY",
        ">COUNT",
        ">RUNNING",
        ">PENDING",
        ">VERSION",
    ]);
    for job in items(list) {
        let state = field(job, "state");
        let row = [
            whose(job, "name"),
            state.clone(),
            field(job, "kind"),
            field(job, "band"),
            field(job, "priority"),
            field(job, "count"),
            field(job, "running"),
            field(job, "pending"),
            version(&job["version"]),
        ];
        table.row(Look::of(&state), row);
    }
    table.render("no jobs; `covey run FILE` makes one") + &caveats(list)
}

pub(crate) fn job(job: &Value, now: SystemTime) -> String {
    let reason = job["reason"].as_str().map_or(String::new(), |reason| format!(" ({})", shown(reason)));
    let mut text = format!(
        "{}  {}{reason}, {} of {} running, {}\n{}, band {}, priority {}\n",
        whose(job, "name"),
        field(job, "state"),
        field(job, "running"),
        field(job, "count"),
        version(&job["version"]),
        field(job, "kind"),
        field(job, "band"),
        field(job, "priority"),
    );
    if let Some(tasks) = job["tasks"].as_array() {
        text.push_str(&format!("\n{}", tasks_of(tasks, now).render("no tasks")));
    }
    let versions = job["versions"].as_array().map_or(&[][..], Vec::as_slice);
    if versions.len() > 1 {
        let mut table = Table::new(&["VERSION", "MADE", "BY"]);
        for one in versions.iter().rev() {
            table.row(Look::Plain, [version(&one["version"]), age(&one["time"], now), field(one, "by")]);
        }
        text.push_str(&format!("\n{}", table.render("")));
    }
    text
}
