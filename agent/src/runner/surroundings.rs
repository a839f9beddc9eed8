//! What a task's container has of its node beside its image: volumes, files, devices, privileges.

use std::path::{Path, PathBuf};

use oci::{
    bundle::{Bind, BindKind, BundleConfig},
    cgroup::Device,
    spec::{self, Tmpfs},
};
use oci_spec::runtime::Capability;
use placement::{ids::JobKey, job::container::Source};

use super::{
    Ground,
    prepare::{Failure, lasting, transient},
};
use crate::{event::StartRun, volumes::anonymous};

pub(super) struct Surroundings {
    pub(super) capabilities: Vec<Capability>,
    pub(super) tmpfs: Vec<Tmpfs>,
    pub(super) binds: Vec<Bind>,
}

/// `data`: the image's own volumes.
pub(super) fn of(ground: &Ground, start: &StartRun, data: &[String]) -> Result<Surroundings, Failure> {
    let volumes = &ground.volumes;
    let privileges = &start.container.privileges;
    let names = privileges.capabilities.iter();
    let capabilities = names.map(|name| spec::capability(name)).collect::<Result<_, _>>().map_err(lasting)?;
    let job = JobKey { owner: start.owner.clone(), name: start.name.clone() };
    let (mut tmpfs, mut binds) = (Vec::new(), Vec::new());
    for volume in &start.container.volumes {
        let target = PathBuf::from(&volume.path);
        let (source, kind) = match &volume.source {
            Source::Tmpfs(bytes) => {
                tmpfs.push(Tmpfs { target, bytes: *bytes });
                continue;
            }
            Source::Name(name) => (volumes.path(&job, start.run.key.index, name), BindKind::Volume),
            Source::Host(path) => (PathBuf::from(path), BindKind::Host),
        };
        binds.push(Bind { source, target, kind });
    }
    if binds.iter().any(|bind| bind.kind == BindKind::Volume) {
        volumes.used(&job, start.run.key.index, start.run.generation).map_err(|e| {
            transient(format!("cannot write down who uses the volumes of {job}/{}: {e}", start.run.key.index))
        })?;
    }
    for target in anonymous::targets(data, &start.container.volumes) {
        let source = ground.anonymous.path(start.run, &target);
        binds.push(Bind { source, target, kind: BindKind::Volume });
    }
    // What lies within another is mounted after it.
    binds.sort_by_key(|bind| bind.target.components().count());
    for path in &privileges.devices {
        let path = PathBuf::from(path);
        binds.push(Bind { source: path.clone(), target: path, kind: BindKind::Device });
    }
    Ok(Surroundings { capabilities, tmpfs, binds })
}

/// In the run's cgroups, which are made for that. What is not there, or no device, the shim finds too, and says so.
pub(super) fn allow_devices(config: &BundleConfig) -> Result<(), Failure> {
    let wanted = config.binds.iter().filter(|bind| bind.kind == BindKind::Device);
    let number = |path: &Path| Device::of(path).ok().flatten();
    let devices: Vec<Device> = wanted.filter_map(|bind| number(&bind.source)).collect();
    match devices.is_empty() {
        true => Ok(()),
        false => config.cgroup.allow(&devices).map_err(transient),
    }
}
