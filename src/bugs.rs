//! Seeded bugs, one for each invariant, with which the torture suite proves that it finds them.
//! Compiled with the feature `seeded-bugs` only.

/// A seeded bug; `SWITCHBOARD_BUG` selects one at startup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// I1: a claim takes a name from its holder.
    ClaimsSteal,
    /// I2: a replaced session is not told, and continues.
    ReplacedUntold,
    /// I3: pushes are delivered while missed entries are still being read.
    PushesWhileCatchingUp,
    /// I4: repeated signals are delivered again.
    RepeatsDelivered,
    /// I5: dead nodes are not noticed.
    DeafToDeadNodes,
    /// I6: leases do not expire.
    ImmortalRecords,
    /// I7: entries are confirmed once written, not once received.
    ConfirmsUnheard,
    /// I7: a session is not told that it may have missed something.
    MissedNotTold,
    /// I7: parked signals are sent out of order.
    ParksOutOfOrder,
    /// I7: a signal counts as delivered although nobody subscribes to the plain user's channel.
    PublishCountsTheFrozen,
    /// I7: an HTTP session stays at its home, wherever its stream arrives.
    StreamDoesNotTakeOver,
    /// I8: mailboxes have no bound.
    BottomlessMailbox,
    /// I9: the expiry guard is off after a stall.
    Fearless,
    /// I10: a drain ends sessions that could be resumed.
    DrainHangsUp,
    /// I11: after an invalid frame all further frames are ignored.
    DeafAfterDirt,
    /// I12: messages carry the wrong sender.
    MislabelsSenders,
}

/// Environment variables that are not settings.
pub(crate) const VARIABLES: &[&str] = if cfg!(feature = "seeded-bugs") {
    &["SWITCHBOARD_BUG", "SWITCHBOARD_DROP_PUSHES"]
} else {
    &[]
};

/// Whether this process runs with the bug.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

/// Whether this push is to be dropped as if the mailbox were full.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn drops_push() -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use seeded::{drops_push, has};

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use std::sync::OnceLock;

    use super::Bug;

    const NAMES: [(&str, Bug); 16] = [
        ("claims-steal", Bug::ClaimsSteal),
        ("replaced-untold", Bug::ReplacedUntold),
        ("pushes-while-catching-up", Bug::PushesWhileCatchingUp),
        ("repeats-delivered", Bug::RepeatsDelivered),
        ("deaf-to-dead-nodes", Bug::DeafToDeadNodes),
        ("immortal-records", Bug::ImmortalRecords),
        ("confirms-unheard", Bug::ConfirmsUnheard),
        ("missed-not-told", Bug::MissedNotTold),
        ("parks-out-of-order", Bug::ParksOutOfOrder),
        ("publish-counts-the-frozen", Bug::PublishCountsTheFrozen),
        ("stream-does-not-take-over", Bug::StreamDoesNotTakeOver),
        ("bottomless-mailbox", Bug::BottomlessMailbox),
        ("fearless", Bug::Fearless),
        ("drain-hangs-up", Bug::DrainHangsUp),
        ("deaf-after-dirt", Bug::DeafAfterDirt),
        ("mislabels-senders", Bug::MislabelsSenders),
    ];

    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    static DROPPED: OnceLock<u32> = OnceLock::new();

    pub(crate) fn has(bug: Bug) -> bool {
        let chosen = CHOSEN.get_or_init(|| {
            let name = std::env::var("SWITCHBOARD_BUG").ok()?;
            let known = NAMES.iter().find(|(known, _)| *known == name);
            Some(
                known
                    .unwrap_or_else(|| {
                        panic!("SWITCHBOARD_BUG={name}: no such bug; see src/bugs.rs")
                    })
                    .1,
            )
        });
        *chosen == Some(bug)
    }

    /// Drops `SWITCHBOARD_DROP_PUSHES` percent of the pushes.
    pub(crate) fn drops_push() -> bool {
        let percent = DROPPED.get_or_init(|| {
            let percent = std::env::var("SWITCHBOARD_DROP_PUSHES").ok();
            percent
                .and_then(|percent| percent.parse().ok())
                .unwrap_or_default()
        });
        *percent > 0 && rand::random_range(0..100) < *percent
    }
}
