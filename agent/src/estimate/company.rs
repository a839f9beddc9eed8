//! How far tasks go the same way at the same time: what they add up to depends on it.

use serde::{Deserialize, Serialize};

use super::crowd::stands_for;

/// Amounts that add up to as much as how far they come together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Spread {
    sum: f64,
    squares: f64,
}

impl Spread {
    pub(super) fn add(&mut self, amount: f64) {
        self.sum += amount;
        self.squares += amount * amount;
    }

    /// Of what has nothing to do with each other: in quadrature.
    pub(super) fn apart(&self) -> f64 {
        self.squares.sqrt()
    }

    /// Of what always comes at once.
    pub(super) fn as_one(&self) -> f64 {
        self.sum
    }

    /// Each with each of the others.
    fn products(&self) -> f64 {
        self.sum * self.sum - self.squares
    }

    /// Of what correlates so far.
    pub(super) fn together(&self, correlation: f64) -> f64 {
        ((1.0 - correlation) * self.squares + correlation * self.sum * self.sum).sqrt()
    }
}

/// How far tasks move together, whoever comes and goes: the products of what two of them are off their means, beside what
/// they would be if both always were at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Company {
    both: f64,
    most: f64,
}

impl Company {
    /// Takes what tasks are off their means now, and how far they deviate at other times.
    pub(super) fn observe(&mut self, off: &Spread, deviations: &Spread, since_ms: u64, horizon_ms: u64) {
        let (keep, weight) = stands_for(since_ms as f64, horizon_ms);
        self.both = self.both * keep + off.products() * weight;
        self.most = self.most * keep + deviations.products() * weight;
    }

    /// The mean correlation: 0 when each goes its own way, 1 when all rise and fall as one.
    pub(super) fn correlation(&self) -> f64 {
        if self.most > 0.0 { (self.both / self.most).clamp(0.0, 1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    /// Sixteen tasks of amplitude 1, each `lag` quarters of an hour after the one before.
    fn correlation(lag: u64) -> f64 {
        let mut company = Company::default();
        for part in 0..96 {
            let off = |task: u64| (std::f64::consts::TAU * (part + lag * task) as f64 / 16.0).sin();
            let (mut offs, mut deviations) = (Spread::default(), Spread::default());
            // Of every two tasks one is there each second wave only.
            for task in (0..16).filter(|task| task % 2 == 0 || part / 16 % 2 == 0) {
                offs.add(off(task));
                deviations.add(0.5_f64.sqrt());
            }
            company.observe(&offs, &deviations, HOUR / 4, 24 * HOUR);
        }
        company.correlation()
    }

    #[test]
    fn who_moves_together_is_told_from_who_does_not_while_others_come_and_go() {
        let (as_one, apart) = (correlation(0), correlation(1));
        assert!(as_one > 0.95, "{as_one}");
        assert!(apart < 0.05, "{apart}");
        assert_eq!(Company::default().correlation(), 0.0);
    }

    #[test]
    fn what_tasks_add_up_to_is_between_quadrature_and_the_sum() {
        let mut spread = Spread::default();
        (0..16).for_each(|_| spread.add(10.0));
        assert_eq!((spread.apart(), spread.as_one()), (40.0, 160.0));
        assert_eq!((spread.together(0.0), spread.together(1.0)), (40.0, 160.0));
        let half = spread.together(0.5);
        assert!(half > 100.0 && half < 130.0, "{half}");
    }
}
