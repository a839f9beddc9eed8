//! Images and containers. Blocking throughout; knows neither cell nor job.

// Images: what runs.
pub mod binary;
pub mod content;
pub mod digest;
pub mod disk;
pub mod layers;
pub mod layout;
pub mod manifest;
mod platform;
pub mod reference;
pub mod rootfs;

// Containers: how it runs.
pub mod bundle;
pub mod cgroup;
pub mod container;
pub mod copy;
pub mod dial;
pub mod exec;
pub mod logs;
pub mod network;
pub mod pidfd;
pub mod quota;
pub mod seccomp;
pub mod shim;
pub mod spec;
pub mod stats;
pub mod supervisor;
