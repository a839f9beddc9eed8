//! Jobs and tasks as people name them.

use std::{fmt, str::FromStr};

use gossip::wire::JobName;
use placement::job::name::{is_label, is_node_label};

/// `JOB/INDEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskName {
    pub(crate) job: JobName,
    pub(crate) index: u32,
}

/// `JOB` or `JOB/INDEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) job: JobName,
    pub(crate) index: Option<u32>,
}

/// `JOB/INDEX` or `JOB/INDEX/NAME`: an index's volumes, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeName {
    pub(crate) task: TaskName,
    pub(crate) name: Option<String>,
}

/// `NAME` or `OWNER/NAME`.
pub(crate) fn job(text: &str) -> Result<JobName, String> {
    let target: Target = text.parse()?;
    match target.index {
        None => Ok(target.job),
        Some(index) => {
            Err(format!("that is a task; a job has the form NAME or OWNER/NAME, here without the /{index}"))
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// Names begin with a letter, so a number at the end can only be an index.
    fn from_str(text: &str) -> Result<Self, String> {
        let (job, index) = match text.rsplit_once('/') {
            Some((job, index)) if index.starts_with(|c: char| c.is_ascii_digit()) => {
                let index = index
                    .parse()
                    .map_err(|_| format!("`{index}` is not an index: 0 is a job's first task"))?;
                (job, Some(index))
            }
            _ => (text, None),
        };
        let (owner, name) = match job.split_once('/') {
            Some((owner, name)) => (Some(owner.to_owned()), name),
            None => (None, job),
        };
        if owner.as_deref() == Some("") || !is_label(name) {
            return Err(format!(
                "a job has the form NAME or OWNER/NAME, a task NAME/INDEX or OWNER/NAME/INDEX, and `{name}` is not a \
                 name: a small letter, then small letters, digits and -, at most 63"
            ));
        }
        Ok(Target { job: JobName { owner, name: name.to_owned() }, index })
    }
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Target { job, index: Some(index) } => Ok(TaskName { job, index }),
            Target { index: None, .. } => {
                Err(format!("that is a job; a task has the form JOB/INDEX, for instance {text}/0"))
            }
        }
    }
}

impl FromStr for VolumeName {
    type Err = String;

    /// Volumes' names begin with a letter too: what ends in a number has none.
    fn from_str(text: &str) -> Result<Self, String> {
        let (task, name) = match text.rsplit_once('/') {
            Some((task, name)) if !name.starts_with(|c: char| c.is_ascii_digit()) => (task, Some(name)),
            _ => (text, None),
        };
        const FORM: &str = "volumes have the form JOB/INDEX or JOB/INDEX/NAME";
        let task: TaskName = task.parse().map_err(|_| match task.parse::<Target>() {
            Ok(Target { index: None, .. }) if name.is_none() => {
                format!("that is a job; {FORM}, for instance {text}/0")
            }
            _ => format!("`{text}` names no volume: {FORM}"),
        })?;
        match name {
            Some(name) if !is_label(name) => Err(format!(
                "`{name}` is not the name of a volume: a small letter, then small letters, digits and -, at most 63"
            )),
            name => Ok(VolumeName { task, name: name.map(str::to_owned) }),
        }
    }
}

/// A label to set, or without a value one to take away: `KEY=VALUE` or `KEY-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelChange(pub(crate) String, pub(crate) Option<String>);

impl FromStr for LabelChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => {
                let key = text.strip_suffix('-');
                (key.ok_or("KEY=VALUE sets a label, and KEY- takes it away")?, None)
            }
        };
        match [Some(key), value].into_iter().flatten().find(|part| !is_node_label(part)) {
            None => Ok(LabelChange(key.to_owned(), value.map(str::to_owned))),
            Some(part) => {
                Err(format!("`{part}` cannot be in a label: it is made of letters, digits and . _ - / : +"))
            }
        }
    }
}

/// A job as people name it.
pub(crate) struct Shown<'a>(pub(crate) &'a JobName);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.owner {
            Some(owner) => write!(f, "{owner}/{}", self.0.name),
            None => f.write_str(&self.0.name),
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Shown(&self.job), self.index)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "volume {name} of {}", self.task),
            None => write!(f, "the volumes of {}", self.task),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}/{index}", Shown(&self.job)),
            None => write!(f, "{}", Shown(&self.job)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(text: &str) -> String {
        match text.parse::<Target>() {
            Ok(t) => format!("{:?} {} {:?}", t.job.owner, t.job.name, t.index),
            Err(why) => why,
        }
    }

    #[test]
    fn owner_name_and_index_are_told_apart() {
        assert_eq!(target("web"), "None web None");
        assert_eq!(target("web/0"), "None web Some(0)");
        assert_eq!(target("alice/web"), "Some(\"alice\") web None");
        assert_eq!(target("alice/web/12"), "Some(\"alice\") web Some(12)");
        assert_eq!("alice/web/12".parse::<TaskName>().unwrap().to_string(), "alice/web/12");
    }

    #[test]
    fn volumes_are_an_indexs() {
        let shown = |text: &str| text.parse::<VolumeName>().map_or_else(|why| why, |v| v.to_string());
        assert_eq!(shown("db/0"), "the volumes of db/0");
        assert_eq!(shown("ann/db/0/data"), "volume data of ann/db/0");
        assert_eq!(shown("db/0/data-2"), "volume data-2 of db/0");
        assert!(shown("db").contains("the form JOB/INDEX or JOB/INDEX/NAME"), "{}", shown("db"));
        for text in ["db/data", "db/0/", "db/0/../x", "db/0/Data", "db/0/.used"] {
            assert!(text.parse::<VolumeName>().is_err(), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn labels_are_set_or_taken_away() {
        let read = |text: &str| text.parse::<LabelChange>();
        assert_eq!(read("rack=r1"), Ok(LabelChange("rack".into(), Some("r1".into()))));
        assert_eq!(read("rack-"), Ok(LabelChange("rack".into(), None)));
        assert_eq!(read("a=b-"), Ok(LabelChange("a".into(), Some("b-".into()))));
        assert!(read("rack").unwrap_err().contains("KEY- takes it away"));
        for (text, bad) in
            [("=r1", "``"), ("rack=", "``"), ("-", "``"), ("a b=c", "`a b`"), ("a=b=c", "`b=c`")]
        {
            let why = read(text).unwrap_err();
            assert!(why.contains(&format!("{bad} cannot be in a label")), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_form() {
        for text in ["", "/", "9web", "web/", "a/b/c/0", "we b", "/web", "web//0", "wéb", "Web"] {
            assert!(target(text).contains("the form NAME or OWNER/NAME"), "{text}: {}", target(text));
        }
        assert!(target("web/99999999999").contains("not an index"));
        assert!(target("web/1x").contains("not an index"));
        assert!("web".parse::<TaskName>().unwrap_err().contains("for instance web/0"));
        assert!(job("web/3").unwrap_err().contains("that is a task"));
        assert!(job(&"a".repeat(63)).is_ok() && job(&"a".repeat(64)).is_err());
    }
}
