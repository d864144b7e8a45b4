//! Ends, in the log of events, what nobody else can: the sessions of dead nodes, and their calls.

use tokio::time::Instant;

use crate::broker::{BrokerError, EventLog, Holder, Orphan};
use crate::model::{Address, Offset};
use crate::router::Router;

/// How many names one read asks for.
const AT_ONCE: usize = 256;

/// Looks for sessions that are over because their nodes died, and records their ends.
pub(super) async fn reap(log: &dyn EventLog, router: &Router) -> Result<(), BrokerError> {
    if router.guard(Instant::now()).is_some() {
        // Nobody counts as dead.
        return Ok(());
    }
    let orphans = log.orphans().await?;
    for some in orphans.chunks(AT_ONCE) {
        let addresses: Vec<Address> = some
            .iter()
            .map(|orphan| orphan.ended.address.clone())
            .collect();
        let holders = router.broker().holders(&addresses).await?;
        for (orphan, holder) in some.iter().zip(holders) {
            let holder = holder.filter(|holder| holder.session == orphan.ended.session);
            decide(log, router, orphan, holder).await?;
        }
    }
    Ok(())
}

async fn decide(
    log: &dyn EventLog,
    router: &Router,
    orphan: &Orphan,
    holder: Option<Holder>,
) -> Result<(), BrokerError> {
    let local = router.local();
    let dead_for = local.peers.dead_for(&orphan.node);
    match holder {
        // Resumed: that node tells of it.
        Some(holder) if holder.node != orphan.node => return log.adopted(orphan).await,
        Some(holder) if holder.flags.resumable && dead_for < local.terms.grace_if_idle() => {
            return Ok(());
        }
        // Its client must not come back after its end was told. The next look finds nobody.
        Some(holder) if holder.flags.resumable => {
            let release =
                router
                    .broker()
                    .release(&orphan.ended.address, &holder, Offset::default());
            return release.await.map(drop);
        }
        // A plain session ends with its node, and one that nobody holds has ended.
        _ => {}
    }
    for call in &orphan.calls {
        log.record(call).await?;
    }
    log.record(&orphan.ended).await?;
    log.adopted(orphan).await
}
