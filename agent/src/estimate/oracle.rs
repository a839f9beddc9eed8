//! The peak that really came: of the tasks present at a time, from then to the horizon or the trace's end.

use super::{Amounts, trace::NodeTrace};

/// A task's usage from its first sample on, 0 where it was not there.
struct Series {
    first: usize,
    usage: [Vec<f32>; 2],
}

/// The true peaks of a node, for each of its times.
pub(super) fn peaks(node: &NodeTrace, horizon_ms: u64, mut step: impl FnMut()) -> Vec<Amounts> {
    let series = series(node);
    let times = &node.times_ms;
    let mut peaks = Vec::with_capacity(times.len());
    let mut end = 0;
    // The usage of the tasks in `of`, from time `from` on.
    let (mut of, mut from): (Vec<u32>, usize) = (Vec::new(), 0);
    let mut sums = [Vec::<f64>::new(), Vec::new()];
    for at in 0..times.len() {
        while end < times.len() && times[end] - times[at] <= horizon_ms {
            end += 1;
        }
        let mut present: Vec<u32> = node.at(at).iter().map(|sample| sample.task).collect();
        present.sort_unstable();
        if present != of {
            (of, from) = (present, at);
            sums = [Vec::new(), Vec::new()];
        }
        // What was summed for the time before serves again if no task came or went.
        for (resource, sums) in sums.iter_mut().enumerate() {
            let begin = from + sums.len();
            sums.resize(end - from, 0.0);
            for task in &of {
                add(&series[*task as usize], resource, begin, &mut sums[begin - from..]);
            }
        }
        let peak = |resource: usize| sums[resource][at - from..].iter().copied().fold(0.0, f64::max);
        peaks.push([peak(0), peak(1)]);
        step();
    }
    peaks
}

fn series(node: &NodeTrace) -> Vec<Series> {
    let mut all: Vec<Series> =
        node.tasks.iter().map(|_| Series { first: 0, usage: [Vec::new(), Vec::new()] }).collect();
    for at in 0..node.times_ms.len() {
        for sample in node.at(at) {
            let series = &mut all[sample.task as usize];
            if series.usage[0].is_empty() {
                series.first = at;
            }
            for (usage, now) in series.usage.iter_mut().zip(sample.usage) {
                usage.resize(at - series.first, 0.0);
                usage.push(now);
            }
        }
    }
    all
}

/// Adds what the task used from time `begin` on.
fn add(series: &Series, resource: usize, begin: usize, to: &mut [f64]) {
    let usage = &series.usage[resource];
    let (skip_to, skip_usage) = (series.first.saturating_sub(begin), begin.saturating_sub(series.first));
    let (Some(to), Some(usage)) = (to.get_mut(skip_to..), usage.get(skip_usage..)) else { return };
    for (sum, usage) in to.iter_mut().zip(usage) {
        *sum += f64::from(*usage);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::job::Band;

    use super::{super::trace::*, *};

    #[test]
    fn only_the_tasks_that_are_there_now_count_and_only_to_the_horizon() {
        let mut trace = Trace::default();
        // `b` leaves after the third sample and is back for the fifth; `c` comes late.
        let rows = [("a", vec![1, 2, 9, 3, 1]), ("b", vec![5, 4, 1, -1, 7]), ("c", vec![-1, -1, 50, 50, 1])];
        for at in 0..5 {
            for (task, usage) in &rows {
                if usage[at] >= 0 {
                    let usage = [f64::from(usage[at]), 1.0];
                    let time_ms = at as u64 * 1000;
                    let row = Row { time_ms, node: "n", task, band: Band::Batch, limit: [99.0; 2], usage };
                    trace.push(&row).unwrap();
                }
            }
        }
        let cpu =
            |horizon_ms| peaks(&trace.nodes[0], horizon_ms, || ()).iter().map(|p| p[0]).collect::<Vec<_>>();
        assert_eq!(cpu(60_000), [10.0, 10.0, 60.0, 53.0, 9.0]);
        assert_eq!(cpu(1000), [6.0, 10.0, 60.0, 53.0, 9.0]);
        assert_eq!(cpu(0), [6.0, 6.0, 60.0, 53.0, 9.0]);
    }
}
