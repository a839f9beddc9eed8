//! Amounts in two bytes: a logarithm, rounded up by at most a twentieth of a percent.

use serde::{Deserialize, Serialize};

/// Steps to the double; 2^50 is the largest amount.
const STEPS: f64 = 1300.0;

/// An amount from 0 to 2^50. They compare as the amounts do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Compact(u16);

impl Compact {
    pub(super) const ZERO: Compact = Compact(0);

    pub(super) fn of(amount: f64) -> Self {
        // The tiny bit keeps what was rounded up once from being rounded up again.
        Compact((STEPS * amount.max(0.0).ln_1p() / std::f64::consts::LN_2 - 1e-6).ceil() as u16)
    }

    pub(super) fn amount(self) -> f64 {
        (f64::from(self.0) / STEPS).exp2() - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_a_little_and_only_once() {
        for amount in [0.0, 0.5, 1.0, 240.0, 1000.0, 64e6, 1e12] {
            let back = Compact::of(amount).amount();
            assert!(
                back >= amount * (1.0 - 1e-9) && back <= (amount + 1.0) * 1.00054 - 1.0 + 1e-9,
                "{amount} {back}"
            );
            assert_eq!(Compact::of(back), Compact::of(amount));
        }
        assert!(Compact::of(f64::INFINITY) == Compact::of(1e30), "what is too large is the largest");
    }
}
