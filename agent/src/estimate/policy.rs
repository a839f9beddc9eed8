//! The policies by name: covey's own in three presets, and those to compare it with.

use std::{fmt, str::FromStr};

/// How a peak is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// covey's own, by preset.
    Covey(Preset),
    /// No overcommit.
    Limit,
    BorgDefault,
    RcLike,
    NSigma,
    Max,
    /// The best constant share of the limits, in hindsight.
    Const,
    /// The peak that really came.
    Oracle,
}

/// How much risk covey's own policy takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Preset {
    Conservative,
    #[default]
    Normal,
    Aggressive,
}

impl Policy {
    pub const ALL: [Policy; 10] = [
        Policy::Covey(Preset::Normal),
        Policy::Covey(Preset::Conservative),
        Policy::Covey(Preset::Aggressive),
        Policy::Limit,
        Policy::BorgDefault,
        Policy::RcLike,
        Policy::NSigma,
        Policy::Max,
        Policy::Const,
        Policy::Oracle,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Covey(Preset::Normal) => "covey",
            Policy::Covey(Preset::Conservative) => "covey-conservative",
            Policy::Covey(Preset::Aggressive) => "covey-aggressive",
            Policy::Limit => "limit",
            Policy::BorgDefault => "borg-default",
            Policy::RcLike => "rc-like",
            Policy::NSigma => "n-sigma",
            Policy::Max => "max",
            Policy::Const => "const",
            Policy::Oracle => "oracle",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy {0:?}: the policies are {names}", names = Policy::ALL.map(Policy::as_str).join(", "))]
pub struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Policy::ALL
            .into_iter()
            .find(|policy| policy.as_str() == name)
            .ok_or_else(|| UnknownPolicy(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_policy_goes_by_its_name() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy);
        }
        let unknown = "psychic".parse::<Policy>().unwrap_err().to_string();
        assert!(unknown.contains("\"psychic\"") && unknown.contains("n-sigma"), "{unknown}");
    }
}
