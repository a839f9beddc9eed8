use test_vms::lab::{Lab, Result};

pub(crate) fn add(lab: &Lab, host: &str) -> Result<()> {
    lab.add(host)?;
    say!("{host} has joined {}", lab.name());
    Ok(())
}
