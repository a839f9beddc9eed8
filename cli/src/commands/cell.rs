//! The cell as a whole, and its settings.

use gossip::wire::Call;

use crate::{
    args::cell::{CellVerb, Setting},
    failure::Failure,
    output::{self, Out},
    session::Session,
};

pub(super) async fn cell(verb: Option<CellVerb>, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let call = match verb {
        None => Call::Cell,
        Some(CellVerb::Set { settings }) => {
            let mut lost_after_ms = None;
            for Setting::LostAfter(after) in settings {
                lost_after_ms = Some(after.millis());
            }
            Call::CellSet { lost_after_ms }
        }
    };
    out.either(&session.ask(call).await?, output::cell)
}
