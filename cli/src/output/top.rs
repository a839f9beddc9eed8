//! What the cell does now: nodes, bands, and tasks by use.

use std::cmp::Reverse;

use serde_json::Value;

use super::{
    caveats, field,
    grid::{Column, cut, grid},
    units::{RESOURCES, amount as shown, bytes, cpu},
    whose,
};

/// What tasks are shown by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Cpu,
    Memory,
    Name,
}

/// The space that there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Of no terminal.
pub(crate) const AMPLE: Space = Space { columns: 160, rows: usize::MAX };
/// A bar's.
const BAR: usize = 20;
/// Lines beside those of nodes, bands and tasks: the first, three heads and the lines between.
const FRAME: usize = 7;

pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) head: bool,
}

pub(crate) fn top(document: &Value, sort: Sort, space: Space) -> Vec<Line> {
    let list = |name: &str| document[name].as_array().map_or(&[][..], Vec::as_slice);
    let (nodes, bands) = (list("nodes"), list("bands"));
    let mut tasks: Vec<&Value> = list("tasks").iter().collect();
    let by = |resource: &'static str| move |task: &&Value| Reverse(amount(&task["usage"], resource));
    match sort {
        Sort::Cpu => tasks.sort_by_key(by("cpu_milli")),
        Sort::Memory => tasks.sort_by_key(by("memory_bytes")),
        Sort::Name => {}
    }
    let busy: Vec<&Value> = bands.iter().filter(|band| amount(band, "tasks") > 0).collect();
    let caveats = caveats(document);
    let left = space.rows.saturating_sub(FRAME + busy.len() + caveats.lines().count());
    // Half of it at most, so that there is room for tasks.
    let node_rows = nodes.len().min((left / 2).max(1));
    let task_rows = left.saturating_sub(node_rows);

    let plain = |text: String| Line { text: cut(&text, space.columns), head: false };
    let mut lines = vec![plain(summary(document))];
    lines.extend(caveats.lines().map(|line| plain(line.to_owned())));
    let nodes: Vec<&Value> = nodes.iter().collect();
    for (columns, rows) in [
        (node_columns(&nodes), node_rows),
        (band_columns(&busy), busy.len()),
        (task_columns(&tasks), task_rows),
    ] {
        let (head, rows) = grid(columns, space.columns, rows);
        lines.push(plain(String::new()));
        lines.push(Line { text: head, head: true });
        lines.extend(rows.into_iter().map(plain));
    }
    lines.truncate(space.rows);
    lines
}

fn summary(document: &Value) -> String {
    let total = &document["total"];
    let of = |resource: &str, unit: fn(u64) -> String| {
        let part = |of: &Value| shown(of, resource, unit);
        format!(
            "{} used, {} reserved, {} limits of {}",
            part(&total["usage"]),
            part(&total["reservation"]),
            part(&total["limit"]),
            part(&document["capacity"]),
        )
    };
    let time = field(document, "as_of");
    let clock = time.get(11..19).unwrap_or(&time);
    let tasks = match field(total, "tasks").as_str() {
        "1" => "1 task".to_owned(),
        tasks => format!("{tasks} tasks"),
    };
    format!("{clock}  {tasks}  CPU {}  memory {}", of("cpu_milli", cpu), of("memory_bytes", bytes))
}

fn node_columns(nodes: &[&Value]) -> Vec<Column> {
    let column = |spare, head: &str, cell: &dyn Fn(&Value) -> String| {
        Column::new(spare, head, nodes.iter().map(|node| cell(node)))
    };
    let mut columns = vec![column(0, "NODE", &|node| field(node, "node"))];
    columns.push(column(7, ">TASKS", &|node| field(node, "tasks")));
    for (name, resource, unit) in RESOURCES {
        let of = move |of: &'static str| move |node: &Value| shown(&node[of], resource, unit);
        columns.push(column(2, name, &|node| bar(node, resource)));
        columns.push(column(1, &format!(">{name} USED"), &of("usage")));
        columns.push(column(4, ">RESERVED", &of("reservation")));
        columns.push(column(5, ">LIMITS", &of("limit")));
        columns.push(column(3, ">CAPACITY", &of("capacity")));
    }
    columns
}

fn band_columns(bands: &[&Value]) -> Vec<Column> {
    let column = |spare, head: &str, cell: &dyn Fn(&Value) -> String| {
        Column::new(spare, head, bands.iter().map(|band| cell(band)))
    };
    let mut columns = vec![column(0, "BAND", &|band| field(band, "band"))];
    columns.push(column(4, ">TASKS", &|band| field(band, "tasks")));
    shares(&mut columns, bands);
    columns.push(column(6, ">EVICTED", &|band| field(&band["evicted"], "day")));
    columns
}

fn task_columns(tasks: &[&Value]) -> Vec<Column> {
    let column = |spare, head: &str, cell: &dyn Fn(&Value) -> String| {
        Column::new(spare, head, tasks.iter().map(|task| cell(task)))
    };
    let mut columns = vec![column(0, "TASK", &|task| whose(task, "job"))];
    shares(&mut columns, tasks);
    columns.push(column(4, "NODE", &|task| field(task, "node")));
    columns.push(column(5, "BAND", &|task| field(task, "band")));
    columns.push(column(6, "STATE", &|task| field(task, "state")));
    columns
}

fn shares(columns: &mut Vec<Column>, of: &[&Value]) {
    for (name, resource, unit) in RESOURCES {
        let cells = |field: &'static str| of.iter().map(move |one| shown(&one[field], resource, unit));
        columns.push(Column::new(1, &format!(">{name} USED"), cells("usage")));
        columns.push(Column::new(3, ">RESERVED", cells("reservation")));
        columns.push(Column::new(2, ">LIMIT", cells("limit")));
    }
}

fn amount(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or(0)
}

/// Used `#`, reserved beyond that `+`, limits beyond that `-`, of the capacity.
fn bar(node: &Value, resource: &str) -> String {
    let capacity = amount(&node["capacity"], resource).max(1);
    let part = |of: &str| {
        let share = u128::from(amount(&node[of], resource)) * BAR as u128 / u128::from(capacity);
        share.min(BAR as u128) as usize
    };
    let (used, reserved, limits) = (part("usage"), part("reservation"), part("limit"));
    let cell = |n| match n {
        n if n < used => '#',
        n if n < reserved => '+',
        n if n < limits => '-',
        _ => ' ',
    };
    format!("[{}]", (0..BAR).map(cell).collect::<String>())
}
