//! What operators set for the whole cell.

use serde::{Deserialize, Serialize};

use super::{
    Answer, Later, Ledger, Refusal,
    apply::{CHANGED, UNCHANGED},
};

/// A shorter one moves tasks at each hiccup of the network, a longer one is a typing error.
pub const LOST_AFTER_MS: core::ops::RangeInclusive<u64> = 100..=24 * 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Tasks of a node that membership declared dead are placed elsewhere after so long, in milliseconds (DESIGN 4).
    pub lost_after_ms: u64,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { lost_after_ms: 1000, later: Later::new() }
    }
}

impl Settings {
    pub(super) fn is_default(&self) -> bool {
        *self == Settings::default()
    }
}

impl Ledger {
    /// What is None stays.
    pub(super) fn set(&mut self, lost_after_ms: Option<u64>) -> Result<Answer, Refusal> {
        let mut new = self.settings.clone();
        if let Some(ms) = lost_after_ms {
            if !LOST_AFTER_MS.contains(&ms) {
                let message = format_args!("lost_after is from 100 ms to 24 h, not {ms} ms");
                return Err(Refusal::invalid(message));
            }
            new.lost_after_ms = ms;
        }
        if new == self.settings {
            return Ok(UNCHANGED);
        }
        self.settings = new;
        Ok(CHANGED)
    }
}
