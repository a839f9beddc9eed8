//! Offers: this node's own books decide (PROTOCOL 2, 7, 17, 19, 20, 24).

use gossip::wire::{News, Offer, RefusedOffer};
use placement::{
    ids::{Generation, TaskKey},
    obstacle::shortage,
    task::{Cause, Exit, State, TaskSpec},
};

use super::{
    Core,
    record::Record,
    session::Answer,
    task::{Goal, Task, Writing},
};
use crate::event::{About, Action, Note};

impl Core {
    pub(crate) fn on_offer(&mut self, offer: Offer) {
        let Offer { key, generation, version, spec, remark, lesson } = offer;
        let Some(session) = self.session.as_mut() else { return };
        if let Some(task) = self.tasks.get_mut(&key).filter(|t| t.record.generation == generation) {
            // It is here: accepted, or being written and answered then, maybe since an earlier session.
            if matches!(task.writing, Some((_, Writing::Accept))) {
                task.accepting = Some(session.id);
                return;
            }
            if task.goal != Goal::Gone {
                return self.accept(key, generation);
            }
        }
        match session.seen.get(&key) {
            Some((seen, _)) if *seen > generation => {
                let seen = *seen;
                return self.refuse(key, generation, RefusedOffer::Stale { seen });
            }
            // The same generation again: the same answer. What was here and is over is never accepted a second time.
            Some((seen, answer)) if *seen == generation => {
                let refused = match answer {
                    Answer::Refused(refused) => refused.clone(),
                    Answer::None | Answer::Over => RefusedOffer::Stale { seen: generation },
                };
                return self.refuse(key, generation, refused);
            }
            None if generation <= session.floor => {
                let seen = session.floor;
                return self.refuse(key, generation, RefusedOffer::Stale { seen });
            }
            _ => {}
        }
        session.seen.insert(key, (generation, Answer::None));
        let session = session.id;
        if let Some(lesson) = lesson.as_deref() {
            self.estimation.hear(lesson);
        }
        self.count();
        let allotted = self.admit(key, generation, &spec).and_then(|()| {
            let used = self.ports_used();
            self.ports
                .allot(&spec.ports, &used, self.now.mono_ms)
                .map_err(|free| RefusedOffer::NoPort { free })
        });
        let ports = match allotted {
            Ok(ports) => ports,
            Err(refused) => {
                let about = About { job: spec.job, index: key.index, generation };
                self.out.push(Action::Note(Note {
                    kind: "refused",
                    about: Some(about),
                    text: sentence(&refused),
                    ms: None,
                }));
                return self.refuse(key, generation, refused);
            }
        };
        let mut task = Task::new(Record {
            key,
            generation,
            version,
            ports,
            run: 0,
            restarts: 0,
            restart_at: spec.restart_at,
            failures: 0,
            exit: None,
            outcome: None,
            reason: None,
            remark: remark.clone(),
            since_ms: self.now.wall_ms,
            stopping: None,
            next: None,
            checked: None,
            unknown: Default::default(),
            spec,
        });
        task.accepting = Some(session);
        self.tasks.insert(key, task);
        if let Some(session) = self.session.as_mut() {
            session.kept.insert(key, generation);
        }
        self.write(key, Writing::Accept);
        if let Some(remark) = remark {
            self.note(key, "volume_lost", remark);
        }
    }

    /// Whether the node takes it.
    fn admit(&self, key: TaskKey, generation: Generation, spec: &TaskSpec) -> Result<(), RefusedOffer> {
        if generation.placer() < self.promise {
            return Err(RefusedOffer::Stale { seen: self.promised() });
        }
        if let Some(task) = self.tasks.get(&key) {
            let mine = task.record.generation;
            return Err(match &task.record {
                // Final, whatever generation it was (PROTOCOL 24).
                Record { outcome: Some(State::Succeeded), exit, .. } => RefusedOffer::Succeeded {
                    exit: exit.clone().unwrap_or(Exit { code: Some(0), signal: None, cause: Cause::Exited }),
                },
                _ if mine >= generation => RefusedOffer::Stale { seen: mine },
                _ => RefusedOffer::Busy { generation: mine },
            });
        }
        if let Some(stray) = self.strays.iter().find(|stray| stray.key == key) {
            return Err(RefusedOffer::Busy { generation: stray.generation });
        }
        // An older job of the same name: one at a time (PROTOCOL 2). What ended there no longer matters.
        let namesake = self.tasks.values().find(|t| {
            t.record.key.index == key.index && t.record.spec.job == spec.job && t.holds_resources()
        });
        if let Some(task) = namesake {
            return Err(RefusedOffer::Busy { generation: task.record.generation });
        }
        let room = self.books().room(&self.config.node.capacity);
        if let Some((resource, _)) = room.shuts_out(spec.band) {
            let (wanted, free) = (spec.limit.get(resource), 0);
            return Err(RefusedOffer::Short { resource: resource.to_string(), wanted, free });
        }
        match room.short_of(spec.band, &spec.limit) {
            Some((resource, wanted, free)) => {
                Err(RefusedOffer::Short { resource: resource.to_string(), wanted, free })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn accept(&mut self, key: TaskKey, generation: Generation) {
        self.dirty.insert(key);
        let delta = self.delta();
        self.send(News::Accepted { key, generation, delta });
    }

    pub(crate) fn refuse(&mut self, key: TaskKey, generation: Generation, refused: RefusedOffer) {
        if let Some(session) = self.session.as_mut() {
            let seen = session.seen.entry(key).or_insert((generation, Answer::None));
            if seen.0 == generation && seen.1 == Answer::None {
                seen.1 = Answer::Refused(refused.clone());
            }
        }
        let delta = self.delta();
        self.send(News::Refused { key, generation, refused, delta });
    }
}

/// Why an offer was refused, to show.
fn sentence(refused: &RefusedOffer) -> String {
    match refused {
        RefusedOffer::Short { resource, wanted, free } => shortage(resource, *wanted, *free),
        RefusedOffer::NoPort { free } => format!("only {free} of the ports that it asks for are free"),
        RefusedOffer::Stale { seen } => format!("{seen} was seen already"),
        RefusedOffer::Busy { generation } => format!("the copy {generation} is still here"),
        RefusedOffer::Succeeded { .. } => "it succeeded here already".to_string(),
        RefusedOffer::Store { why } => format!("its record cannot be written: {why}"),
    }
}
