//! Where sessions tell what happened to them, if anybody wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::model::Fact;
use crate::telemetry::{Metrics, Webhook};

/// How many facts may wait to be recorded.
const WAITING: usize = 8192;
/// How often it is looked whether all are recorded.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Takes facts without waiting. A fact that finds no room is lost, and counted.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    recorder: Option<(mpsc::Sender<Fact>, Arc<Metrics>)>,
    unrecorded: Arc<AtomicUsize>,
}

/// The facts that are to be recorded.
#[derive(Debug)]
pub struct ToldFacts {
    facts: mpsc::Receiver<Fact>,
    unrecorded: Arc<AtomicUsize>,
}

impl Facts {
    /// Facts that are wanted, and where they come out.
    pub fn wanted(metrics: Arc<Metrics>) -> (Self, ToldFacts) {
        let (sender, facts) = mpsc::channel(WAITING);
        let unrecorded = Arc::<AtomicUsize>::default();
        let told = ToldFacts {
            facts,
            unrecorded: Arc::clone(&unrecorded),
        };
        let recorder = Some((sender, metrics));
        (
            Self {
                recorder,
                unrecorded,
            },
            told,
        )
    }

    /// Whether anybody wants them.
    pub fn are_wanted(&self) -> bool {
        self.recorder.is_some()
    }

    /// Takes a fact.
    pub fn record(&self, fact: Fact) {
        if let Some((recorder, metrics)) = &self.recorder {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
            if recorder.try_send(fact).is_err() {
                self.unrecorded.fetch_sub(1, Ordering::Relaxed);
                metrics.webhooks(Webhook::Lost, 1);
            }
        }
    }

    /// Waits until all are recorded.
    pub async fn recorded(&self) {
        while self.unrecorded.load(Ordering::Relaxed) > 0 {
            sleep(LOOK_EVERY).await;
        }
    }
}

impl ToldFacts {
    /// Waits for facts, and appends at most `most` of them. False if there will be no more.
    pub async fn take(&mut self, most: usize, into: &mut Vec<Fact>) -> bool {
        self.facts.recv_many(into, most).await > 0
    }

    /// So many of those that were taken are recorded.
    pub fn recorded(&self, count: usize) {
        self.unrecorded.fetch_sub(count, Ordering::Relaxed);
    }
}
