//! Whatever the bytes, a job file is a job or an error with a place in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    match cli::jobfile::parse("fuzz", text, &[]) {
        Ok(job) => assert!(!job.job.name.is_empty()),
        Err(why) => assert!(!why.to_string().is_empty() && why.excerpt().is_some()),
    }
});
