//! Whatever the text, a job file is a job or an error with a place in it.
#![no_main]

// The source itself: the whole command line would have to be built for it otherwise.
#[allow(dead_code)]
#[path = "../../src"]
mod command_line {
    pub mod jobfile;
}
use command_line::jobfile;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match jobfile::parse("fuzz", text, &[]) {
        Ok(job) => assert!(!job.job.name.is_empty() && job.document.is_object()),
        Err(why) => {
            let excerpt = why.excerpt().expect("a place");
            assert!(excerpt.line >= 1 && excerpt.column >= 1 && !excerpt.to_string().is_empty());
            assert!(!why.to_string().is_empty());
        }
    }
});
