//! Bugs on purpose, one for each invariant: the torture bench shows that it catches them. Not built without the feature `seeded-bugs`.

/// A bug; `SWITCHBOARD_BUG` chooses one when the process starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// I1: a name is taken from whoever holds it.
    ClaimsSteal,
    /// I2: who was replaced is not told, and goes on.
    ReplacedUntold,
    /// I3: pushes are believed while what was missed is read.
    PushesWhileCatchingUp,
    /// I4: a repetition is delivered again.
    RepeatsDelivered,
    /// I5: nobody looks after dead nodes.
    DeafToDeadNodes,
    /// I6: a lease without an end.
    ImmortalRecords,
    /// I7: what was written counts as received.
    ConfirmsUnheard,
    /// I7: a session is not told that it may have missed something.
    MissedNotTold,
    /// I7: what is parked is sent in another order, and what is overtaken is not heard.
    ParksOutOfOrder,
    /// I7: a plain user's channel that nobody listens to counts as heard.
    PublishCountsTheFrozen,
    /// I7: an HTTP session stays at its home, wherever its stream arrives.
    StreamDoesNotTakeOver,
    /// I8: a mailbox without a bound.
    BottomlessMailbox,
    /// I9: no hold guard after a stall.
    Fearless,
    /// I10: a drain ends sessions that could be resumed.
    DrainHangsUp,
    /// I11: after a bad frame nothing is heard any more.
    DeafAfterDirt,
    /// I12: a message bears the wrong name.
    MislabelsSenders,
}

/// The variables that are no settings.
pub(crate) const VARIABLES: &[&str] = if cfg!(feature = "seeded-bugs") {
    &["SWITCHBOARD_BUG", "SWITCHBOARD_DROP_PUSHES"]
} else {
    &[]
};

/// Whether this process has the bug.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

/// Whether this push is to be treated as one that did not fit.
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
            Some(known.unwrap_or_else(|| panic!("no bug is called {name}")).1)
        });
        *chosen == Some(bug)
    }

    /// `SWITCHBOARD_DROP_PUSHES` percent of the pushes are treated as not fitting.
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
