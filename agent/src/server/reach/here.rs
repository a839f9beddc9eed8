//! A task on this node, as whoever wants into it needs it.

use std::path::PathBuf;

use oci::{
    bundle::{Bundle, ExitRecord},
    exec,
};
use placement::{ids::TaskKey, ledger::Refusal};

use super::{About, Services};
use crate::{
    clock,
    event::{self, Note, RunId},
};

pub(super) struct Here {
    pub(super) about: About,
    pub(super) run: RunId,
    pub(super) bundle: Bundle,
    /// Only its files are there yet.
    pub(super) over: bool,
    /// The covey binary: what helpers are made of.
    pub(super) exe: PathBuf,
    pub(super) node: String,
}

impl Here {
    /// # Errors
    /// Its container is not here now: with what is known of its end.
    pub(super) async fn find(services: &Services, about: About, task: TaskKey) -> Result<Here, Refusal> {
        let node = services.cell.name(services.cell.me());
        let seen = services.node.read(move |core| (core.running(task), core.report(task))).await;
        match seen {
            Some((Some((run, _)), _)) => {
                let bundle = Bundle::at(services.bundles.join(run.to_string()));
                Ok(Here { about, run, bundle, over: false, exe: services.exe.clone(), node })
            }
            Some((None, Some(report))) => {
                let row = serde_json::json!({
                    "state": report.state, "since": clock::rfc3339(report.since_ms), "exit": report.exit,
                    "reason": report.reason,
                });
                Err(super::not_running(&about, &row))
            }
            _ => {
                let About { job, index } = &about;
                Err(Refusal {
                    code: "not_found".into(),
                    message: format!("{job}/{index} is not on {node} any more"),
                    hint: Some(format!(
                        "covey task {job}/{index} shows where it is; the command may be given again"
                    )),
                })
            }
        }
    }

    /// What a run that is over has left.
    pub(super) fn left(services: &Services, about: About, run: RunId) -> Result<Here, Refusal> {
        let node = services.cell.name(services.cell.me());
        match services.left_files.bundle(run) {
            Some(bundle) => Ok(Here { about, run, bundle, over: true, exe: services.exe.clone(), node }),
            None => {
                let message =
                    format!("the files that {}/{} has left on {node} are gone", about.job, about.index);
                Err(Refusal::new("not_found", message, None))
            }
        }
    }

    /// An event that says who does what.
    pub(super) fn note(&self, services: &Services, kind: &'static str, text: String) {
        let About { job, index } = self.about.clone();
        let about = event::About { job, index, generation: self.run.generation };
        services.journal.note(Note { kind, about: Some(about), text, ms: None });
    }

    /// Why nothing could be done in the container, to whoever wanted it.
    pub(super) fn refusal(&self, what: &str, error: exec::Error) -> Refusal {
        let About { job, index } = &self.about;
        let hint = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
        match error {
            exec::Error::Gone(record) => Refusal {
                code: "not_found".into(),
                message: format!("{job}/{index} does not run (any more){}", ended(record.as_ref())),
                hint: hint(&format!(
                    "covey task {job}/{index} shows what becomes of it, covey logs what it said"
                )),
            },
            exec::Error::Refused(failure) => Refusal {
                code: "invalid".into(),
                message: format!("{job}/{index}: {failure}"),
                hint: hint(&failure.hint),
            },
            exec::Error::TooLong => Refusal {
                code: "invalid".into(),
                message: error.to_string(),
                hint: hint("put it into a file and copy that: covey cp"),
            },
            error => Refusal {
                code: "failed".into(),
                message: format!("{} cannot {what} in {job}/{index}: {error}", self.node),
                hint: None,
            },
        }
    }
}

fn ended(record: Option<&ExitRecord>) -> String {
    let Some(record) = record else { return String::new() };
    let when = clock::rfc3339(record.finished_at_ms);
    match (record.code, record.signal, &record.error) {
        (Some(code), ..) => format!(": it exited with code {code} at {when}"),
        (_, Some(signal), _) => format!(": signal {signal} ended it at {when}"),
        (.., Some(failure)) => format!(": {failure}"),
        _ => format!(": it ended at {when}"),
    }
}
