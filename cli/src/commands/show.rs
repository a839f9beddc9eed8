//! Verbs that show one document: jobs, job, tasks, task, nodes, why.

use std::time::SystemTime;

use gossip::wire::{Call, JobName};

use super::context;
use crate::{
    failure::Failure,
    names::{Target, TaskName},
    output::{self, Out},
    session::Session,
};

pub(super) async fn jobs(session: &Session, out: &mut Out) -> Result<(), Failure> {
    out.either(&session.ask(Call::Jobs).await?, output::jobs)
}

pub(super) async fn job(job: JobName, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let document = session.ask(Call::Job { job }).await?;
    out.either(&document, |job| output::job(job, SystemTime::now()))
}

pub(super) async fn tasks(job: Option<JobName>, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let document = session.ask(Call::Tasks { job }).await?;
    out.either(&document, |tasks| output::tasks(tasks, SystemTime::now()))
}

pub(super) async fn task(task: TaskName, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let document = session.ask(Call::Task { job: task.job, index: task.index }).await?;
    out.either(&document, |task| output::task(task, SystemTime::now()))
}

pub(super) async fn nodes(session: &Session, out: &mut Out) -> Result<(), Failure> {
    let list = session.ask(Call::Nodes).await?;
    if !session.is_local() {
        context::learn(&list, session.nodes().into_iter().next());
    }
    out.either(&list, output::nodes)
}

pub(super) async fn why(target: Target, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let document = session.ask(Call::Why { job: target.job, index: target.index }).await?;
    out.either(&document, output::why)
}
