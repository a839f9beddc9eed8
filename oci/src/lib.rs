//! Images and containers. Blocking throughout; knows neither cell nor job.

pub mod bundle;
pub mod cgroup;
pub mod container;
pub mod logs;
pub mod pidfd;
pub mod seccomp;
pub mod shim;
pub mod spec;
pub mod stats;
