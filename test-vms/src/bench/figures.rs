//! Samples, and how they are shown.

use std::time::Duration;

/// What one program took, sample by sample.
#[derive(Debug)]
pub(crate) struct Series {
    name: String,
    samples: Vec<Duration>,
}

impl Series {
    pub(crate) fn new(name: String) -> Self {
        Self { name, samples: Vec::new() }
    }

    /// A peer's figure that was measured elsewhere, for where it cannot be measured.
    pub(crate) fn given(name: &str, figure: Duration) -> Self {
        Self { name: format!("{name} (given)"), samples: vec![figure] }
    }

    pub(crate) fn push(&mut self, sample: Duration) {
        self.samples.push(sample);
    }

    /// The middle sample; zero if there is none.
    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The longest sample; zero if there is none.
    pub(crate) fn worst(&self) -> Duration {
        self.quantile(1.0)
    }

    fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let place = (share * last as f64).round() as usize;
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// Prints covey's series (the first) against its goal and beside its peers'; true when the goal is met.
pub(crate) fn show(series: &[Series], goal: Duration) -> bool {
    let Some(covey) = series.first() else { return false };
    let met = !covey.samples.is_empty() && covey.median() <= goal;
    println!("  {:28} {:>10} {:>10} {:>10} {:>10}   covey/peer", "", "median", "p10", "p90", "worst");
    for one in series {
        let ratio = if std::ptr::eq(one, covey) {
            format!("goal ≤ {} ms: {}", goal.as_millis(), if met { "met" } else { "MISSED" })
        } else {
            format!("{:.2}", covey.median().as_secs_f64() / one.median().as_secs_f64())
        };
        println!(
            "  {:28} {:>10} {:>10} {:>10} {:>10}   {ratio}",
            one.name,
            millis(one.median()),
            millis(one.quantile(0.1)),
            millis(one.quantile(0.9)),
            millis(one.worst())
        );
    }
    met
}

/// Prints covey's series (the first) beside its peers'; true when its median is at most `goal` times the first peer's.
/// Without a peer nothing is shown to be met.
pub(crate) fn show_against(series: &[Series], goal: f64) -> bool {
    let Some(covey) = series.first() else { return false };
    let mut met = false;
    for (place, one) in series.iter().enumerate() {
        let ratio = covey.median().as_secs_f64() / one.median().as_secs_f64();
        let verdict = match place {
            0 => String::new(),
            1 => {
                met = ratio <= goal;
                format!("{ratio:.2}   goal ≤ {goal} ×: {}", if met { "met" } else { "MISSED" })
            }
            _ => format!("{ratio:.2}"),
        };
        let [p10, p90] = [0.1, 0.9].map(|share| millis(one.quantile(share)));
        println!("  {:28} {:>10} {p10:>10} {p90:>10}   {verdict}", one.name, millis(one.median()));
    }
    met
}

/// Milliseconds with one decimal.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// Prints one number against its goal; true when it is met.
pub(crate) fn show_at_most(what: &str, value: f64, goal: f64, unit: &str) -> bool {
    let met = value <= goal;
    let places = if goal < 1.0 { 3 } else { 1 };
    println!(
        "  {what:28} {value:>7.places$} {unit}   goal ≤ {goal} {unit}: {}",
        if met { "met" } else { "MISSED" }
    );
    met
}

/// Prints one number against its goal; true when it is reached.
pub(crate) fn show_at_least(what: &str, value: f64, goal: f64, unit: &str) -> bool {
    let met = value >= goal;
    println!(
        "  {what:28} {value:>7.1} {unit}   goal ≥ {goal} {unit}: {}",
        if met { "met" } else { "MISSED" }
    );
    met
}

/// Prints whether what must hold does.
pub(crate) fn show_holds(what: &str, holds: bool, detail: &str) -> bool {
    println!("  {what:44} {}   {detail}", if holds { "yes" } else { "NO" });
    holds
}

/// Prints how many requests failed, and when and why the first of them; true when none did.
pub(crate) fn show_none_failed(failed: &[String]) -> bool {
    let detail = format!("{} {}", failed.len(), failed.first().map_or("", String::as_str));
    show_holds("no request failed", failed.is_empty(), &detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let mut series = Series::new("x".to_owned());
        assert_eq!(series.median(), Duration::ZERO);
        for millis in [9, 1, 5, 7, 3] {
            series.push(Duration::from_millis(millis));
        }
        assert_eq!(series.median(), Duration::from_millis(5));
        assert_eq!(series.quantile(0.9), Duration::from_millis(9));
    }
}
