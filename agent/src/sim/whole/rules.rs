//! Rules that can be left out, to see whether a check notices.

/// Of PROTOCOL, and of what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// 6: a leader acts whether a majority answers or not.
    Quorum,
    /// 9 and 11: who has not reported to a new placer is taken for empty.
    Fence,
    /// 19: the disk says that it has flushed, and has not.
    Flush,
}
