//! Whether a job is as it was asked to be: what `run --wait` waits for.

use placement::{
    change::Change,
    ids::JobKey,
    intent::{Verdict, Wanted},
    job::{Job, Kind},
    task::State,
};

use super::{Active, PlaceCore, jobs::ending, rows::TaskRow};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// A service: all running and healthy, nothing of an older version left. Batch: all succeeded.
    Yes,
    /// What is still missing.
    NotYet(String),
    /// It will not come to that by itself.
    Never(String),
}

impl PlaceCore {
    /// None when this node is not the placer, or there is no such job.
    pub fn settled(&self, job: &JobKey) -> Option<Settled> {
        let active = self.active.as_ref()?;
        Some(active.settled(active.intent.jobs.get(job)?))
    }
}

impl Active {
    fn settled(&self, wanted: &Wanted) -> Settled {
        let job = match &wanted.job {
            Ok(job) => job,
            Err(why) => return Settled::Never(why.clone()),
        };
        let record = &wanted.record;
        if job.kind == Kind::Batch {
            let failed = record.finished.range(..job.count).find(|(_, done)| !done.success);
            if let Some((index, done)) = failed {
                return Settled::Never(format!("index {index} {}", ending(&done.exit)));
            }
            if (0..job.count).all(|i| record.has_succeeded(i)) {
                return Settled::Yes;
            }
        }
        if record.stopped {
            return Settled::Never("the job was stopped".to_string());
        }
        match job.kind {
            Kind::Batch => {
                let left = (0..job.count).filter(|i| !record.has_succeeded(*i)).count();
                let why = self.task_rows(Some(&wanted.key)).iter().find_map(lacks_place);
                Settled::NotYet(why.unwrap_or(format!("{left} of {} have not ended yet", job.count)))
            }
            Kind::Service => self.service_settled(wanted, job),
        }
    }

    fn service_settled(&self, wanted: &Wanted, job: &Job) -> Settled {
        let rows = self.task_rows(Some(&wanted.key));
        let open = rows.iter().filter(|row| {
            let index = row.key.index;
            if wanted.verdict(index) != Verdict::Wanted || row.key.uid != wanted.uid() {
                // A copy too many, or nothing at all.
                return row.report.as_ref().is_some_and(|_| row.node.is_some() && !row.state.is_final());
            }
            let Some(copy) = row.report.as_ref().filter(|_| row.state == State::Running) else { return true };
            let checked = job.template(index).is_checked();
            wanted.change(copy.version, index) != Change::None
                || copy.restart_at < wanted.restart_at(index)
                || if checked { copy.healthy != Some(true) } else { copy.healthy == Some(false) }
        });
        let open: Vec<&TaskRow> = open.collect();
        let Some(first) = open.first() else {
            // Rows show the newest copy of each name: older ones on other nodes count too.
            return match self.copies_of(wanted) > wanted.indexes().count() {
                true => Settled::NotYet("an older copy has not ended yet".to_string()),
                false => Settled::Yes,
            };
        };
        let about = open.iter().find_map(|row| lacks_place(row)).or_else(|| first.reason.clone());
        let text = match about {
            Some(reason) => reason,
            None => format!("{} of {} are not running well yet", open.len(), job.count),
        };
        Settled::NotYet(text)
    }

    /// Copies of the job's name that have not ended, on nodes that count.
    fn copies_of(&self, wanted: &Wanted) -> usize {
        let nodes = self.view.nodes.values().filter(|n| n.standing != placement::view::Standing::Gone);
        nodes.flat_map(|n| n.tasks.values()).filter(|t| t.job == wanted.key && !t.state.is_final()).count()
    }
}

fn lacks_place(row: &TaskRow) -> Option<String> {
    let waits = matches!(row.state, State::Pending | State::Unknown | State::Lost);
    row.reason.as_ref().filter(|_| waits).map(|reason| format!("index {}: {reason}", row.key.index))
}
