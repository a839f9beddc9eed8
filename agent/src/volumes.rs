//! The node's volumes: directories that stay with a job's index, whatever becomes of its containers.
//!
//! ```text
//! DIR/volumes/OWNER/JOB/INDEX/NAME      the volume, in the container's own ids; made by the first run that mounts it
//!                         .NAME.new     one that is being made
//! ```
//! By the job's name and not by its uid: a job that is stopped and run again finds its data.

use std::{fmt::Write as _, path::PathBuf};

use placement::ids::JobKey;

/// A handle for the directory that holds them.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// Below `root`, which need not exist.
    pub fn new(root: PathBuf) -> Volumes {
        Volumes { root }
    }

    /// Where an index's volume is, or will be.
    pub fn path(&self, job: &JobKey, index: u32, name: &str) -> PathBuf {
        let job_dir = self.root.join(component(&job.owner)).join(component(&job.name));
        job_dir.join(index.to_string()).join(name)
    }
}

/// As a file name: names of jobs are so already, owners may be anything.
fn component(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "%{other:02x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_owner_leads_out_of_the_directory() {
        let volumes = Volumes::new("/d".into());
        let of = |owner: &str| {
            let job = JobKey { owner: owner.into(), name: "db".into() };
            volumes.path(&job, 3, "data").display().to_string()
        };
        assert_eq!(of("ann"), "/d/ann/db/3/data");
        assert_eq!(of("../x@y"), "/d/%2e%2e%2fx%40y/db/3/data");
    }
}
