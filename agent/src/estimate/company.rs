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
