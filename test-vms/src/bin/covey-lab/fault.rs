use test_vms::lab::{Lab, Result};

pub(crate) fn cut(lab: &Lab, from: &str, to: &str, one_way: bool) -> Result<()> {
    lab.cut(&from.split(',').collect::<Vec<_>>(), &to.split(',').collect::<Vec<_>>(), one_way)
}
