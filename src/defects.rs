//! Deliberate defects. A check that no defect can make fail proves nothing; so each of these
//! breaks the engine at one place, on request, and the simulation has to notice.
//!
//! Without the feature `simulate` nothing can ask for one, and [`Defects::has`] is always false.

/// One way in which an engine like this one could be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(feature = "simulate"),
    expect(unreachable_pub, reason = "no tests")
)]
pub enum Defect {
    /// Readers see a commit, and lose sight of what it supersedes, before it is synced.
    PublishBeforeSync,
    /// Readers see what was written while a flush synced what came before it.
    PublishPastSync,
    /// Readers lose sight of what a commit supersedes before it is synced; the commit shows after.
    RetireBeforeSync,
    /// Writes are acknowledged as durable without a sync.
    AcknowledgeBeforeSync,
    /// Writes go on after a sync that failed.
    IgnoreFailedSync,
    /// The log goes on in a new segment while the end of the old one is not synced.
    LeaveSegmentUnsynced,
    /// A segment gets its name before what it begins with is synced.
    NameUnsynced,
    /// The directory is not synced after a segment got its name.
    ForgetSegmentName,
    /// The directory is not synced after a pack got its name.
    ForgetPackName,
    /// The parts of a commit are commits of their own.
    SplitCommits,
    /// Commits that are synced together become visible newest first.
    PublishBackwards,
    /// Nobody keeps others from opening the store.
    ForgetLock,
    /// Recovery takes frames for whole that nobody vouches for.
    TrustTornTail,
    /// Recovery takes damage in the midst of the log for its torn end.
    TakeDamageForTear,
    /// Recovery goes on from frames that may be in the page cache only.
    TrustPageCache,
    /// After an unclean end, positions go on where the log ends.
    ForgetPositionJump,
    /// The catalog is saved at a position that is not durable.
    CatalogAheadOfLog,
    /// The catalog is saved at its new position without what changed in the feeds.
    StaleCatalog,
    /// Files that a compaction replaced go before the catalog knows of the replacement.
    RemoveEarly,
    /// Compaction drops the versions that hold the payloads of deleted records.
    DropHeldPayloads,
    /// Compaction numbers records anew.
    RenumberRecords,
    /// A payload is returned without a look at its checksum.
    TrustPayloads,
    /// A sweep deletes what was seen, too.
    SweepSeen,
    /// A sweep deletes more than it was allowed to.
    SweepWithoutLimit,
    /// What an open window has seen is forgotten when the process ends.
    ForgetSeen,
    /// A run that was told to stop goes on writing.
    IgnoreFence,
    /// Readers that missed a purged deletion are not told so.
    IgnorePurge,
    /// The trail offers versions that were superseded.
    RememberSuperseded,
    /// A run of the index is used although records were removed since it was written.
    KeepStaleRuns,
}

/// Which defect an engine has; none, outside of tests.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Defects {
    #[cfg(feature = "simulate")]
    chosen: Option<Defect>,
}

impl Defects {
    /// Whether to be wrong in this way.
    #[inline]
    pub(crate) fn has(self, defect: Defect) -> bool {
        #[cfg(feature = "simulate")]
        return self.chosen == Some(defect);
        #[cfg(not(feature = "simulate"))]
        {
            let _ = defect;
            false
        }
    }
}

#[cfg(feature = "simulate")]
impl Defect {
    /// All that a history of one thread can show. [`Self::PublishPastSync`] takes a writer beside a
    /// flush, and is for `shuttle` to find.
    pub const ALL: [Self; 28] = [
        Self::PublishBeforeSync,
        Self::RetireBeforeSync,
        Self::AcknowledgeBeforeSync,
        Self::IgnoreFailedSync,
        Self::LeaveSegmentUnsynced,
        Self::NameUnsynced,
        Self::ForgetSegmentName,
        Self::ForgetPackName,
        Self::SplitCommits,
        Self::PublishBackwards,
        Self::ForgetLock,
        Self::TrustTornTail,
        Self::TakeDamageForTear,
        Self::TrustPageCache,
        Self::ForgetPositionJump,
        Self::CatalogAheadOfLog,
        Self::StaleCatalog,
        Self::RemoveEarly,
        Self::DropHeldPayloads,
        Self::RenumberRecords,
        Self::TrustPayloads,
        Self::SweepSeen,
        Self::SweepWithoutLimit,
        Self::ForgetSeen,
        Self::IgnoreFence,
        Self::IgnorePurge,
        Self::RememberSuperseded,
        Self::KeepStaleRuns,
    ];
}

#[cfg(feature = "simulate")]
impl From<Defect> for Defects {
    fn from(defect: Defect) -> Self {
        Self {
            chosen: Some(defect),
        }
    }
}
