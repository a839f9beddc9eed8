//! Something alone and beside something else, in turns, on a machine that is noisy by itself: what it is beside is told by
//! ratios of neighbours in time, and what the noise does by those of alone to alone.

/// The three windows of a round, in an order that changes from round to round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Alone,
    Again,
    Beside,
}

use Window::{Again, Alone, Beside};

/// What is done in a round.
pub(crate) fn order(round: usize) -> [Window; 3] {
    [[Alone, Again, Beside], [Beside, Alone, Again], [Alone, Beside, Again]][round % 3]
}

/// One figure of each window, round by round.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    rounds: Vec<[f64; 3]>,
}

impl Pairs {
    pub(crate) fn begin(&mut self) {
        self.rounds.push([0.0; 3]);
    }

    pub(crate) fn note(&mut self, window: Window, value: f64) {
        if let Some(round) = self.rounds.last_mut() {
            round[window as usize] = value;
        }
    }

    /// Sorted ratios of one window to another.
    fn ratios(&self, of: Window, to: Window) -> Vec<f64> {
        let mut all: Vec<f64> =
            self.rounds.iter().map(|round| round[of as usize] / round[to as usize]).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn values(&self, of: Window) -> Vec<f64> {
        let mut all: Vec<f64> = self.rounds.iter().map(|round| round[of as usize]).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// For what shall not grow: true when the median ratio is at most `goal`, or the 90th percentile of alone to alone.
    pub(crate) fn show_at_most(&self, what: &str, goal: f64, unit: &str) -> bool {
        let (beside, alone) = (self.ratios(Beside, Alone), self.ratios(Again, Alone));
        let goal = goal.max(quantile(&alone, 0.9));
        let met = quantile(&beside, 0.5) <= goal;
        self.show(what, unit, &format!("goal ≤ {goal:.2}: {}", if met { "met" } else { "MISSED" }));
        met
    }

    /// For what shall not shrink: true when the median ratio is at least `goal` of that of alone to alone.
    pub(crate) fn show_at_least(&self, what: &str, goal: f64, unit: &str) -> bool {
        let (beside, alone) = (self.ratios(Beside, Alone), self.ratios(Again, Alone));
        let goal = goal * quantile(&alone, 0.5).min(1.0);
        let met = quantile(&beside, 0.5) >= goal;
        self.show(what, unit, &format!("goal ≥ {goal:.2}: {}", if met { "met" } else { "MISSED" }));
        met
    }

    /// For what has no goal.
    pub(crate) fn show(&self, what: &str, unit: &str, verdict: &str) {
        let (beside, alone) = (self.ratios(Beside, Alone), self.ratios(Again, Alone));
        println!(
            "  {what:28} {:>9.2} {unit} alone, {:>9.2} {unit} beside   beside/alone {:.2} ({:.2} to {:.2})   alone/alone {:.2}, p90 {:.2}   {verdict}",
            quantile(&self.values(Alone), 0.5),
            quantile(&self.values(Beside), 0.5),
            quantile(&beside, 0.5),
            quantile(&beside, 0.1),
            quantile(&beside, 0.9),
            quantile(&alone, 0.5),
            quantile(&alone, 0.9),
        );
    }
}

/// Pearson's, between the first and the second.
pub(crate) fn correlation(pairs: &[[f64; 2]]) -> f64 {
    let number = pairs.len() as f64;
    let mean = |of: usize| pairs.iter().map(|both| both[of]).sum::<f64>() / number;
    let means = [mean(0), mean(1)];
    let sum = |a: usize, b: usize| -> f64 {
        pairs.iter().map(|both| (both[a] - means[a]) * (both[b] - means[b])).sum()
    };
    sum(0, 1) / (sum(0, 0) * sum(1, 1)).sqrt()
}

/// Of sorted values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbours() {
        let mut pairs = Pairs::default();
        for (alone, again, beside) in [(1.0, 1.1, 3.0), (10.0, 10.0, 20.0), (2.0, 2.0, 2.2)] {
            pairs.begin();
            pairs.note(Alone, alone);
            pairs.note(Again, again);
            pairs.note(Beside, beside);
        }
        assert_eq!(quantile(&pairs.ratios(Beside, Alone), 0.5), 2.0);
        assert!(pairs.show_at_most("x", 2.0, "ms") && !pairs.show_at_most("x", 1.9, "ms"));
        assert!(pairs.show_at_least("x", 2.0, "a second") && !pairs.show_at_least("x", 2.1, "a second"));
    }

    #[test]
    fn what_moves_against_each_other_is_told_from_what_does_not() {
        assert!((correlation(&[[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]) + 1.0).abs() < 1e-9);
        assert!(correlation(&[[1.0, 1.0], [2.0, 2.0], [1.0, 2.0], [2.0, 1.0]]).abs() < 1e-9);
    }

    #[test]
    fn nothing_measured_meets_no_goal() {
        assert!(
            !Pairs::default().show_at_most("x", 9.0, "ms") && !Pairs::default().show_at_least("x", 0.0, "")
        );
    }
}
