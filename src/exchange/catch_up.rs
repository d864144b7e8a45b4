//! How a session makes good for pushes that it missed: it reads its inbox, and believes no push until it is level.
//!
//! An entry counts only if it is later than the last; while reading, a push only tells how far there is to go. So a push that was missed
//! is late, not lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::bugs::{self, Bug};
use crate::fabric::{Entry, Fabric, FabricError, Lease};
use crate::model::EntryId;

/// How long to rest after a read that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How far one session has read.
#[derive(Default)]
pub(super) struct CatchUp {
    last: EntryId,
    seen: EntryId,
    /// What was seen when the reading began.
    told: EntryId,
    /// Another gap was told while reading.
    again: bool,
    /// Nothing was read yet, or tried to.
    beginning: bool,
    /// Nobody hears, until it is told of a gap.
    stopped: bool,
    reading: Option<BoxFuture<'static, Result<Vec<Entry>, FabricError>>>,
}

impl CatchUp {
    /// Whether pushes are believed.
    pub(super) fn level(&self) -> bool {
        self.reading.is_none()
    }

    /// Whether the inbox was not read yet, of a session that has one already.
    pub(super) fn is_beginning(&self) -> bool {
        self.beginning
    }

    /// Begins behind this entry, where everything is still to be read.
    pub(super) fn from(last: EntryId, fabric: &Arc<dyn Fabric>, lease: &Lease) -> Self {
        let mut catch_up = Self {
            last,
            beginning: true,
            ..Self::default()
        };
        catch_up.read(fabric, lease, Duration::ZERO);
        catch_up
    }

    /// Reads no more, until it is told of a gap.
    pub(super) fn stop(&mut self) {
        self.reading = None;
        self.beginning = false;
        self.stopped = true;
    }

    /// Whether it was stopped, and no gap was told since.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The last entry that was handed out.
    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    /// A push came: what is to be delivered, if anything.
    pub(super) fn push(&mut self, entry: Entry) -> Option<Entry> {
        if bugs::has(Bug::PushesWhileCatchingUp) {
            Some(entry)
        } else if self.level() {
            self.advance(entry)
        } else {
            self.seen = self.seen.max(entry.id);
            None
        }
    }

    /// Pushes were missed.
    pub(super) fn gap(&mut self, fabric: &Arc<dyn Fabric>, lease: &Lease) {
        if self.level() {
            let pause = if bugs::has(Bug::PushesWhileCatchingUp) {
                PAUSE
            } else {
                Duration::ZERO
            };
            self.read(fabric, lease, pause);
        } else {
            self.again = true;
        }
    }

    /// Waits for what the inbox says; for ever when level.
    pub(super) async fn next(&mut self) -> Result<Vec<Entry>, FabricError> {
        match &mut self.reading {
            Some(reading) => reading.await,
            None => std::future::pending().await,
        }
    }

    /// The inbox has said it: what is to be delivered. Reads on until it is level.
    pub(super) fn caught(
        &mut self,
        result: Result<Vec<Entry>, FabricError>,
        fabric: &Arc<dyn Fabric>,
        lease: &Lease,
    ) -> Vec<Entry> {
        self.reading = None;
        self.beginning = false;
        let Ok(entries) = result else {
            self.read(fabric, lease, PAUSE);
            return Vec::new();
        };
        if entries.is_empty() {
            // What a push had told of before this was read has run out: there is nothing left to wait for.
            self.last = self.last.max(self.told);
        }
        let delivered = entries
            .into_iter()
            .filter_map(|entry| self.advance(entry))
            .collect();
        if std::mem::take(&mut self.again) || self.seen > self.last {
            self.read(fabric, lease, Duration::ZERO);
        }
        delivered
    }

    /// Takes an entry whose turn it is, once.
    pub(super) fn advance(&mut self, entry: Entry) -> Option<Entry> {
        (entry.id > self.last).then(|| {
            self.last = entry.id;
            entry
        })
    }

    fn read(&mut self, fabric: &Arc<dyn Fabric>, lease: &Lease, pause: Duration) {
        let (fabric, lease, last) = (Arc::clone(fabric), lease.clone(), self.last);
        self.stopped = false;
        self.told = self.seen;
        let reading = async move {
            sleep(pause).await;
            fabric.read(&lease, last).await
        };
        self.reading = Some(reading.boxed());
    }
}

impl std::fmt::Debug for CatchUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatchUp")
            .field("last", &self.last)
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}
