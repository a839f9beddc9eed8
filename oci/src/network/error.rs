//! Why a container could not have the network that it was to have.

use std::io;
use std::net::Ipv4Addr;

use super::subnet::Subnet;

/// No network of its own for a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel knows nothing of what was asked for.
    #[error(
        "cannot {step}: this kernel lacks {feature} ({source}). Load its module (`modprobe {module}`; list it in /etc/modules-load.d to have it at every boot), or run the task with the node's network"
    )]
    Missing {
        /// What was tried.
        step: String,
        /// For people: "bridges".
        feature: &'static str,
        /// The names of the modules.
        module: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was tried, on what.
        step: String,
        /// The cause.
        source: io::Error,
    },
    /// All addresses are in use.
    #[error("all {room} addresses of {subnet} are in use: give this agent a larger `subnet`")]
    Full {
        /// The node's.
        subnet: Subnet,
        /// How many it has.
        room: u32,
    },
    /// What the agent was told to use is used already.
    #[error(
        "the subnet {subnet} overlaps {route}, to which this machine has a route: give this agent another `subnet`"
    )]
    Overlap {
        /// As configured.
        subnet: Subnet,
        /// The other.
        route: Subnet,
    },
    /// Everything seems to be used.
    #[error(
        "every part of 10.128.0.0/9 overlaps a route of this machine: give this agent a `subnet` of its own"
    )]
    NoSubnet,
    /// Two runs were to have one.
    #[error("{address} is another container's")]
    Taken {
        /// The address.
        address: Ipv4Addr,
    },
}

impl Error {
    /// Whether trying again later may help, with nothing changed by hand.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Missing { .. } | Error::Overlap { .. } | Error::NoSubnet => false,
            Error::Step { .. } | Error::Full { .. } | Error::Taken { .. } => true,
        }
    }

    /// For what the kernel says to something that it may not have: by its error the two cases are told apart.
    pub(super) fn of(
        step: impl Into<String>,
        feature: &'static str,
        module: &'static str,
    ) -> impl FnOnce(io::Error) -> Error {
        let step = step.into();
        move |source| match source.raw_os_error() {
            Some(
                libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOENT | libc::ENOSYS,
            ) => Error::Missing { step, feature, module, source },
            _ => Error::Step { step, source },
        }
    }

    pub(super) fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let step = step.into();
        move |source| Error::Step { step, source }
    }
}
