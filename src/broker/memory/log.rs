//! The in-memory implementation of [`EventLog`].

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::time::Instant;

use super::node::MemoryNode;
use crate::broker::{BrokerError, Event, EventLog, Orphan};
use crate::model::Fact;

#[async_trait]
impl EventLog for MemoryNode {
    fn record(&self, fact: &Fact) -> BoxFuture<'static, Result<usize, BrokerError>> {
        let recorded = self
            .shared
            .reach()
            .map(|mut state| state.events.record(fact));
        ready(recorded).boxed()
    }

    async fn lead(&self, within: Duration) -> Result<bool, BrokerError> {
        let (mut state, now) = (self.shared.reach()?, Instant::now());
        let leader = &mut state.events.leader;
        let is_other = leader
            .as_ref()
            .is_some_and(|(node, until)| *node != self.id && *until > now);
        if !is_other {
            *leader = Some((self.id.clone(), now + within));
        }
        Ok(!is_other)
    }

    async fn events(&self, after: Option<&str>, most: usize) -> Result<Vec<Event>, BrokerError> {
        let state = self.shared.reach()?;
        let waiting = state.events.waiting.iter();
        let later = waiting.filter(|event| after.is_none_or(|after| event.place.as_str() > after));
        Ok(later.take(most).cloned().collect())
    }

    async fn waiting(&self) -> Result<usize, BrokerError> {
        Ok(self.shared.reach()?.events.waiting.len())
    }

    async fn done(&self, event: &Event, _: Option<&str>) -> Result<(), BrokerError> {
        let mut state = self.shared.reach()?;
        state
            .events
            .waiting
            .retain(|known| known.place != event.place);
        Ok(())
    }

    /// The sessions of a node end with the process, and so does this log.
    async fn orphans(&self) -> Result<Vec<Orphan>, BrokerError> {
        Ok(Vec::new())
    }

    async fn adopted(&self, _: &Orphan) -> Result<(), BrokerError> {
        Ok(())
    }
}
