use test_vms::lab::{Lab, Result};

pub(crate) fn add(lab: &Lab, host: &str, vm: bool) -> Result<()> {
    if vm {
        lab.add_vm(host)?
    } else {
        lab.add(host)?
    }
    say!("{host} has joined {}", lab.name());
    Ok(())
}
