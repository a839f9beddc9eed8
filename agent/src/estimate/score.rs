//! The score that the predictor keeps of itself: each of its forecasts is compared with what came, and the margin is
//! widened when one was wrong.

use serde::{Deserialize, Serialize};

/// Forecasts that are being watched: one in each twelfth of a horizon.
const KEPT: usize = 12;
const A_HORIZON: u64 = 12;
/// No margin is widened to more than that many times itself.
const WIDEST: f64 = 3.0;

/// A forecast: the peak that was seen, and the one that was predicted. Both 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Forecast {
    seen: f32,
    predicted: f32,
    made_s: u32,
    missed: bool,
}

/// Forecasts and what became of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scorebook {
    forecasts: [Forecast; KEPT],
    last_ms: u64,
    /// Forecasts that came true, and those that did not, the older the less.
    held: f64,
    missed: f64,
    widening: f64,
}

impl Default for Scorebook {
    fn default() -> Self {
        Scorebook {
            forecasts: [Forecast::default(); KEPT],
            last_ms: 0,
            held: 0.0,
            missed: 0.0,
            widening: 1.0,
        }
    }
}

impl Scorebook {
    /// The factor for the margin.
    pub(super) fn widening(&self) -> f64 {
        self.widening
    }

    /// The share of forecasts that came true, as Laplace would have it: 0.5 before there was any.
    pub(super) fn confidence(&self) -> f64 {
        (self.held + 1.0) / (self.held + self.missed + 2.0)
    }

    pub(super) fn scale(&mut self, by: f64) {
        for forecast in &mut self.forecasts {
            forecast.seen *= by as f32;
            forecast.predicted *= by as f32;
        }
    }

    /// Whether it is time for a forecast.
    pub(super) fn due(&self, now_ms: u64, horizon_ms: u64) -> bool {
        let every_ms = (horizon_ms / A_HORIZON).max(1);
        self.last_ms == 0 || now_ms / every_ms != self.last_ms / every_ms
    }

    /// Writes a forecast down, in the place of the oldest.
    pub(super) fn write(&mut self, seen: f64, predicted: f64, now_ms: u64, horizon_ms: u64) {
        let every_ms = (horizon_ms / A_HORIZON).max(1);
        self.fade(now_ms.saturating_sub(self.last_ms), horizon_ms);
        self.last_ms = now_ms.max(1);
        let place = &mut self.forecasts[(now_ms / every_ms) as usize % KEPT];
        if place.predicted > 0.0 && !place.missed {
            self.held += 1.0;
        }
        // What was a week ago counts half.
        let fade = 0.5_f64.powf(1.0 / (7 * A_HORIZON) as f64);
        self.held *= fade;
        self.missed *= fade;
        *place = Forecast {
            seen: seen as f32,
            predicted: predicted as f32,
            made_s: (now_ms / 1000) as u32,
            missed: false,
        };
    }

    /// Compares with what came.
    pub(super) fn observe(&mut self, usage: f64, now_ms: u64, horizon_ms: u64) {
        let now_s = (now_ms / 1000) as u32;
        let mut widening = self.widening;
        let mut missed = false;
        for forecast in &mut self.forecasts {
            let young = u64::from(now_s.saturating_sub(forecast.made_s)) * 1000 <= horizon_ms;
            let (seen, predicted) = (f64::from(forecast.seen), f64::from(forecast.predicted));
            if !young || predicted <= 0.0 || usage <= predicted {
                continue;
            }
            missed = true;
            if !forecast.missed {
                forecast.missed = true;
                self.missed += 1.0;
            }
            let room = (predicted - seen).max(predicted * 0.02);
            widening = widening.max(((usage - seen) / room).min(WIDEST));
        }
        if missed {
            self.widening = widening;
        }
    }

    /// Time passes: what was wrong long ago counts less, by half in a horizon.
    fn fade(&mut self, since_ms: u64, horizon_ms: u64) {
        let keep = 0.5_f64.powf(since_ms as f64 / horizon_ms as f64);
        self.widening = 1.0 + (self.widening - 1.0) * keep;
    }
}
