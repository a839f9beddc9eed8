//! The agent's estimator over a trace, beside other policies.

use std::{
    fs::File,
    io::{BufWriter, Write},
    time::SystemTime,
};

use agent::estimate::{CPU, Policy, Replay, Score, replay};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::trace::{TraceError, read};
use crate::{
    args::simulate::Overcommit,
    failure::Failure,
    output::{self, Out},
};

pub(in crate::commands) fn overcommit(args: &Overcommit, out: &mut Out) -> Result<(), Failure> {
    let policies = args.policy.map_or_else(|| Policy::ALL.to_vec(), |policy| vec![policy]);
    // Before the work, so that it is not done for nothing.
    let predictions = args
        .predictions
        .as_ref()
        .map(|path| File::create(path).map_err(|source| TraceError::Write { path: path.clone(), source }));
    let predictions = predictions.transpose()?;
    let trace = read(&args.trace, &bar("reads", "{bar:30} {bytes}/{total_bytes} {msg}"))?;
    let bar = bar("replays", "{bar:30} {percent}% {msg}");
    bar.set_length(2 * trace.moments() as u64);
    let replay = replay(&trace, args.horizon.millis(), &policies, || bar.inc(1));
    bar.finish_and_clear();
    if let (Some(file), Some(path)) = (predictions, &args.predictions) {
        write(&replay, file).map_err(|source| TraceError::Write { path: path.clone(), source })?;
    }
    let document = json!({
        "as_of": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "stale": false,
        "missing": [],
        "trace": args.trace.display().to_string(),
        "horizon_s": args.horizon.0.as_secs(),
        "nodes": trace.nodes(),
        "rows": trace.rows(),
        "items": replay.scores().iter().map(item).collect::<Vec<_>>(),
    });
    out.either(&document, output::overcommit)
}

fn item(score: &Score) -> Value {
    json!({
        "policy": score.policy.as_str(),
        "resource": if score.resource == CPU { "cpu" } else { "memory" },
        "savings_ratio": score.savings_ratio,
        "violation_rate": score.violation_rate,
        "violation_severity": score.violation_severity,
        "samples": score.samples,
    })
}

fn write(replay: &Replay<'_>, file: File) -> std::io::Result<()> {
    let mut to = BufWriter::new(file);
    writeln!(to, "time_s,node,policy,predicted_peak_milli")?;
    for (time_ms, node, policy, milli) in replay.predictions() {
        writeln!(to, "{},{node},{policy},{milli}", time_ms as f64 / 1000.0)?;
    }
    to.flush()
}

/// Nothing is drawn unless stderr is a terminal.
fn bar(doing: &'static str, shape: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(doing);
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
    bar
}
