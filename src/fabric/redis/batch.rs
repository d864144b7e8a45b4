//! What leaves a lane at once: the envelopes of many senders share one script call, those to one user one push.
//!
//! Half of what a signal costs Redis is the call of the script, and most of the rest is the publishing: shared, sixteen signals to one user
//! cost a third of sixteen calls (measured). Envelopes to one address keep their order, and nothing else about that address overtakes them.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::lane::{Caller, Job};
use super::scripts::Scripts;
use super::wire;
use crate::fabric::{FabricError, Holder, Outcome, Receipt, Sent, ring};
use crate::model::SessionId;

/// How many names one call serves at most: others wait for Redis meanwhile.
const NAMES_AT_ONCE: usize = 64;
/// How often an inbox is cut to its length.
const CUT_ONE_IN: usize = 16;

/// An envelope on its way.
#[derive(Debug)]
pub(super) struct Letter {
    /// The receiver's presence key, inbox and channel.
    pub(super) to: Destination,
    /// The session that alone is meant.
    pub(super) only: Option<SessionId>,
    /// The envelope as it is sent.
    pub(super) bytes: Vec<u8>,
    /// Who hears what becomes of it.
    pub(super) receipt: Receipt,
}

/// The names that belong to one address.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) presence: String,
    pub(super) inbox: String,
    pub(super) channel: String,
}

/// A pipeline that is being filled.
pub(super) struct Batch<'a> {
    scripts: &'a Scripts,
    inbox_ttl: Duration,
    pipeline: Pipeline,
    askers: Vec<Asker>,
    /// The letters of the next call, by receiver, in the order of their first one.
    bundles: Vec<Bundle>,
    /// The last bundle of each receiver.
    last: HashMap<String, usize>,
}

/// Letters that one receiver gets at once.
struct Bundle {
    to: Destination,
    only: Option<SessionId>,
    envelopes: Vec<Vec<u8>>,
    receipts: Vec<Receipt>,
}

/// Who hears the answer to one command.
pub(super) enum Asker {
    /// The senders of each bundle of a call.
    Senders(Vec<Vec<Receipt>>),
    /// Anyone else.
    Caller(Caller),
}

impl Bundle {
    /// The size of the largest envelope, in bytes.
    fn largest(&self) -> usize {
        self.envelopes
            .iter()
            .map(Vec::len)
            .max()
            .unwrap_or_default()
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(scripts: &'a Scripts, inbox_ttl: Duration) -> Self {
        let (pipeline, askers) = (Pipeline::new(), Vec::new());
        Self {
            scripts,
            inbox_ttl,
            pipeline,
            askers,
            bundles: Vec::new(),
            last: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, job: Job) {
        match job {
            Job::Send(letter) => self.bundle(letter),
            Job::Ask(command, caller) => {
                // It may be about an address that something is sent to before.
                self.send_bundles();
                self.push(command, Asker::Caller(caller));
            }
        }
    }

    /// The pipeline, and who hears each answer.
    pub(super) fn finish(mut self) -> (Pipeline, Vec<Asker>) {
        self.send_bundles();
        (self.pipeline, self.askers)
    }

    fn bundle(&mut self, letter: Letter) {
        let Letter {
            to,
            only,
            bytes,
            receipt,
        } = letter;
        if let Some(&known) = self.last.get(&to.presence)
            && self.bundles[known].only == only
        {
            self.bundles[known].envelopes.push(bytes);
            self.bundles[known].receipts.push(receipt);
            return;
        }
        if self.bundles.len() == NAMES_AT_ONCE {
            self.send_bundles();
        }
        self.last.insert(to.presence.clone(), self.bundles.len());
        self.bundles.push(Bundle {
            to,
            only,
            envelopes: vec![bytes],
            receipts: vec![receipt],
        });
    }

    fn send_bundles(&mut self) {
        if self.bundles.is_empty() {
            return;
        }
        self.last.clear();
        let (presences, inboxes) = (self.bundles.iter(), self.bundles.iter());
        let keys = presences
            .map(|bundle| &bundle.to.presence)
            .chain(inboxes.map(|bundle| &bundle.to.inbox));
        let bytes_of = |bundle: &Bundle| bundle.envelopes.iter().map(Vec::len).sum::<usize>() + 128;
        let bytes = self.bundles.iter().map(bytes_of).sum();
        let args = self
            .bundles
            .iter()
            .map(|bundle| bundle.envelopes.len() + 3)
            .sum();
        let mut call = self.scripts.send.with_room(keys, args, bytes);
        call.arg(wire::millis(self.inbox_ttl));
        let mut senders = Vec::with_capacity(self.bundles.len());
        for bundle in self.bundles.drain(..) {
            // By chance, so that no pattern of senders keeps an inbox from being cut.
            let count = bundle.envelopes.len();
            let cut = count > rand::random_range(0..CUT_ONE_IN);
            let hundreds = if cut { ring(bundle.largest()) / 100 } else { 0 };
            call.arg(bundle.to.channel).arg(
                bundle
                    .only
                    .map(|session| session.to_string())
                    .unwrap_or_default(),
            );
            call.arg(count + 1000 * hundreds);
            for envelope in &bundle.envelopes {
                call.arg(envelope);
            }
            senders.push(bundle.receipts);
        }
        self.push(call, Asker::Senders(senders));
    }

    fn push(&mut self, command: Cmd, asker: Asker) {
        self.pipeline.add_command(command);
        self.askers.push(asker);
    }
}

impl Asker {
    /// Tells everybody what Redis answered. An error of Redis that a new connection may cure is returned.
    pub(super) fn hears(self, answer: Value, known: &mut KnownHolders) -> Result<(), FabricError> {
        if let Value::ServerError(error) = answer {
            let told = FabricError::unreachable(&error);
            self.fail(&told);
            // A claim or a renewal that came too late says nothing of the connection. Anything else does: a new one loads the scripts, or
            // finds the primary. The command is not repeated.
            return if error.code() == "LATE" {
                Ok(())
            } else {
                Err(told)
            };
        }
        match (self, answer) {
            (Self::Caller(caller), answer) => drop(caller.send(Ok(answer))),
            (Self::Senders(senders), Value::Array(results)) => {
                // A result that is missing leaves its receipts unsettled, which tells their senders.
                for (receipts, result) in senders.into_iter().zip(results) {
                    let outcome = known.outcome(result);
                    for receipt in receipts {
                        receipt.settle(outcome.clone());
                    }
                }
            }
            (senders @ Self::Senders(_), _) => senders.fail(&wire::unexpected()),
        }
        Ok(())
    }

    /// Tells everybody that the outcome is unknown.
    pub(super) fn fail(self, error: &FabricError) {
        match self {
            Self::Senders(senders) => {
                senders
                    .into_iter()
                    .flatten()
                    .for_each(|receipt| receipt.settle(Err(error.clone())));
            }
            // Whoever gave up waiting needs no answer.
            Self::Caller(caller) => drop(caller.send(Err(error.clone()))),
        }
    }
}

/// Holders that were answered lately: most signals go to somebody who was sent one before.
#[derive(Debug, Default)]
pub(super) struct KnownHolders {
    by_lease: HashMap<Vec<u8>, Holder>,
}

impl KnownHolders {
    /// How many are remembered before all are forgotten.
    const MOST: usize = 4096;

    fn outcome(&mut self, result: Value) -> Outcome {
        let lease = match result {
            Value::Nil => return Ok(Sent::Absent),
            Value::BulkString(lease) => lease,
            _ => return Err(wire::unexpected()),
        };
        if let Some(known) = self.by_lease.get(&lease) {
            return Ok(Sent::To(known.clone()));
        }
        let holder = wire::holder(&lease)?;
        if self.by_lease.len() >= Self::MOST {
            self.by_lease.clear();
        }
        self.by_lease.insert(lease, holder.clone());
        Ok(Sent::To(holder))
    }
}
