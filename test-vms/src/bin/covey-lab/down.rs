use test_vms::lab::{Lab, Result};

pub(crate) fn down(name: &str) -> Result<()> {
    if !Lab::down(name)? {
        say!("there was no lab `{name}`");
    }
    Ok(())
}
