//! Who has how much of the cell.

use gossip::wire::Call;

use crate::{
    args::usage::Usage,
    failure::Failure,
    output::{self, Out},
    session::Session,
};

pub(super) async fn usage(args: &Usage, session: &Session, out: &mut Out) -> Result<(), Failure> {
    out.either(&session.ask(Call::Usage { by: args.by.0 }).await?, output::usage)
}
