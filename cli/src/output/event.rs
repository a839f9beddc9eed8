//! Events.

use serde_json::Value;

use super::{field, whose};

/// One event on a line; lines of a following command are not known beforehand, so columns have fixed widths.
pub(crate) fn event_line(event: &Value) -> String {
    let time = field(event, "time");
    // To the second: the order is that of the lines.
    let time =
        time.split_once('.').map_or(time.as_str(), |(seconds, _)| seconds).trim_end_matches('Z').to_owned();
    let task = if event["job"].is_null() { "-".to_owned() } else { whose(event, "job") };
    format!(
        "{time}Z  {:<10}  {:<12}  {:<12}  {}",
        field(event, "node"),
        task,
        field(event, "kind"),
        field(event, "text")
    )
}
