//! Who waits for the replies of a pipeline, and what each of them gets.

use std::sync::Arc;

use redis::Value;

use super::bundle::Bundle;
use super::diagnosis::{Reaction, reaction, reply_text};
use super::refused::Refused;
use super::reply::{self, HolderCache};
use super::request::{Publish, ReplySender};
use crate::broker::{BrokerError, Holder, Outcome, Receipt, Sent};
use crate::bugs::{self, Bug};

/// Who waits for the reply to one command.
pub(super) enum Waiter {
    /// The senders of each bundle of a call of `send.lua`.
    Bundles(Vec<Bundle>),
    /// The senders of one bundle that was published to this holder.
    Direct(Bundle, Holder),
    /// The callers of each update of a call of `save.lua`.
    Saves(Vec<ReplySender>),
    /// The caller of any other command.
    Command(ReplySender),
}

/// The results of a pipeline. They are collected first and reported later, so that a new epoch can begin in between.
#[derive(Debug, Default)]
pub(super) struct PipelineResults {
    /// Receipts with their outcomes.
    settled: Vec<(Receipt, Outcome)>,
    /// Envelopes that were not delivered since nobody was subscribed, in order.
    pub(super) undelivered: Vec<(Publish, Holder)>,
    /// Whose envelopes were refused.
    pub(super) refused: Refused,
    /// An error that concerns more than one command.
    pub(super) error: Option<BrokerError>,
    /// Whether a new connection may fix the error: connecting loads the scripts and finds the primary.
    pub(super) reconnects: bool,
}

impl PipelineResults {
    /// Whether an envelope found no holder.
    pub(super) fn has_absent(&self) -> bool {
        let mut outcomes = self.settled.iter().map(|(_, outcome)| outcome);
        outcomes.any(|outcome| matches!(outcome, Ok(Sent::Absent)))
    }

    /// Reports the outcomes to the senders.
    pub(super) fn settle(&mut self) {
        for (receipt, outcome) in self.settled.drain(..) {
            receipt.settle(outcome);
        }
    }

    /// Takes the outcomes of a bundle. If one of its envelopes was delivered, earlier ones to the same receiver that
    /// were not may no longer be retried, since they would arrive out of order: their senders get
    /// [`Sent::NoSubscriber`].
    fn take(&mut self, bundle: Bundle, outcomes: Vec<Outcome>) {
        let to = Arc::clone(&bundle.to);
        let mut is_delivered = false;
        for (message, outcome) in bundle.into_messages().zip(outcomes) {
            match outcome {
                Ok(Sent::NoSubscriber(holder)) => self.undelivered.push((message, holder)),
                outcome => {
                    self.refused.note(&message, &outcome);
                    is_delivered |= matches!(outcome, Ok(Sent::To(_)));
                    self.settled.push((message.receipt, outcome));
                }
            }
        }
        if is_delivered && !self.undelivered.is_empty() {
            let settled = &mut self.settled;
            let overtaken = self
                .undelivered
                .extract_if(.., |(message, _)| message.to == to);
            settled.extend(
                overtaken
                    .map(|(message, holder)| (message.receipt, Ok(Sent::NoSubscriber(holder)))),
            );
        }
    }
}

impl Waiter {
    /// Takes the reply of Redis.
    pub(super) fn complete(
        self,
        reply: Value,
        holders: &mut HolderCache,
        results: &mut PipelineResults,
    ) {
        if let Value::ServerError(error) = reply {
            let failure = match error.code() {
                "OOM" => BrokerError::NoMemory,
                _ => BrokerError::unreachable(&reply_text(&error)),
            };
            self.fail(&failure, results);
            match error.code() {
                // The script ran after its deadline. Only its caller is concerned.
                "LATE" => {}
                code => {
                    results.reconnects |= reaction(code) != Reaction::Fails;
                    results.error = Some(failure);
                }
            }
            return;
        }
        match (self, reply) {
            (Self::Command(reply_to), reply) => drop(reply_to.send(Ok(reply))),
            (Self::Direct(bundle, holder), Value::Int(listeners)) => {
                let outcome = match listeners {
                    0 if !bugs::has(Bug::PublishCountsTheFrozen) => Ok(Sent::NoSubscriber(holder)),
                    _ => Ok(Sent::To(holder)),
                };
                let outcomes = vec![outcome; bundle.envelopes.len()];
                results.take(bundle, outcomes);
            }
            (Self::Bundles(bundles), Value::Array(replies)) => {
                // If a reply is missing, the receipts are dropped, which tells their senders that the outcome is
                // unknown.
                for (bundle, reply) in bundles.into_iter().zip(replies) {
                    let outcomes = holders.outcomes(reply, bundle.envelopes.len());
                    results.take(bundle, outcomes);
                }
            }
            (Self::Saves(reply_tos), Value::Array(replies)) => {
                for (reply_to, reply) in reply_tos.into_iter().zip(replies) {
                    drop(reply_to.send(match reply {
                        Value::ServerError(error) => {
                            Err(BrokerError::unreachable(&reply_text(&error)))
                        }
                        reply => Ok(reply),
                    }));
                }
            }
            (waiter, _) => waiter.fail(&reply::unexpected(), results),
        }
    }

    /// Reports that the outcome is unknown.
    pub(super) fn fail(self, error: &BrokerError, results: &mut PipelineResults) {
        let bundles = match self {
            Self::Bundles(bundles) => bundles,
            Self::Direct(bundle, _) => vec![bundle],
            // A caller that has stopped waiting needs no reply.
            Self::Command(reply_to) => return drop(reply_to.send(Err(error.clone()))),
            Self::Saves(reply_tos) => {
                for reply_to in reply_tos {
                    drop(reply_to.send(Err(error.clone())));
                }
                return;
            }
        };
        for message in bundles.into_iter().flat_map(Bundle::into_messages) {
            let outcome = Err(error.clone());
            results.refused.note(&message, &outcome);
            results.settled.push((message.receipt, outcome));
        }
    }
}
