//! Verbs that change a job and return when that is committed: stop, restart, scale.

use gossip::wire::{Call, JobName};

use crate::{failure::Failure, names::Shown, output::Out, session::Session};

/// Says `what` was done, or that it was the `same` before.
pub(super) async fn change(
    call: Call,
    what: &str,
    same: &str,
    session: &Session,
    out: &mut Out,
) -> Result<(), Failure> {
    let done = session.ask(call).await?;
    out.either(&done, |done| if done["changed"] == false { same.to_owned() } else { what.to_owned() })
}

pub(super) async fn scale(job: JobName, count: u32, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let tasks = if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") };
    let what = format!("{} is told to have {tasks}", Shown(&job));
    let same = format!("{} has {tasks} already", Shown(&job));
    change(Call::Scale { job, count }, &what, &same, session, out).await
}
