//! What leaves a publisher at once: the envelopes of many senders share one script call, those to one user one push.
//!
//! Half of what a signal costs Redis is the call of the script, and most of the rest is the publishing: shared, sixteen signals to one user
//! cost a third of sixteen calls (measured). Envelopes to one address keep their order, and nothing else about that address overtakes them.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::connect::Lives;
use super::publisher::{Caller, Job};
use super::scripts::Scripts;
use super::wire::{self, KnownHolders};
use crate::broker::{BrokerError, Holder, Outcome, Receipt, Room, SendOptions, Sent};
use crate::bugs::{self, Bug};

/// How many names one call serves at most: others wait for Redis meanwhile.
const NAMES_AT_ONCE: usize = 64;
/// How many envelopes to one name one call carries at most.
const ENVELOPES_AT_ONCE: usize = 256;

/// An envelope on its way.
#[derive(Debug)]
pub(super) struct Publish {
    /// The receiver's presence key, inbox and channel.
    pub(super) to: Arc<Destination>,
    /// How it is carried.
    pub(super) options: SendOptions,
    /// The envelope's bytes.
    pub(super) bytes: Vec<u8>,
    /// Who hears what becomes of it.
    pub(super) receipt: Receipt,
}

/// What the next holder of a session must know, on its way.
#[derive(Debug)]
pub(super) struct Save {
    /// Presence, inbox and session record; the last is not used.
    pub(super) keys: [String; 4],
    /// As `save.lua` takes them.
    pub(super) args: Vec<String>,
    /// Until when it may be written, in ms of the server's clock.
    pub(super) deadline: i64,
    /// It writes everything: what is sent to the session afterwards must come behind it.
    pub(super) is_anew: bool,
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
    lives: Lives,
    pipeline: Pipeline,
    askers: Vec<Asker>,
    /// The messages of the next call, by receiver, in the order of their first one.
    bundles: Vec<Bundle>,
    /// The last bundle of each receiver.
    last: HashMap<Arc<Destination>, usize>,
    /// The notes of the next call, each behind what was sent to its session before.
    notes: Vec<(Save, Caller)>,
    /// How many jobs it holds.
    size: usize,
}

/// Publishes that one receiver gets at once.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) to: Arc<Destination>,
    pub(super) options: SendOptions,
    pub(super) envelopes: Vec<(Vec<u8>, Receipt)>,
}

/// Who hears the answer to one command.
pub(super) enum Asker {
    /// The senders of each bundle of a call.
    Senders(Vec<Bundle>),
    /// The senders of one bundle that is published to this holder.
    Direct(Bundle, Holder),
    /// Whoever wrote each note of a call.
    Writers(Vec<Caller>),
    /// Anyone else.
    Caller(Caller),
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.presence == other.presence
    }
}

impl Eq for Destination {}

impl std::hash::Hash for Destination {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.presence.hash(state);
    }
}

impl Bundle {
    fn bytes(&self) -> usize {
        let sizes = self.envelopes.iter().map(|(bytes, _)| bytes.len());
        sizes.sum()
    }

    /// Writes the bundle as the script reads it.
    fn write(&self, call: &mut Cmd) {
        let only = self.options.only.map(|session| session.to_string());
        call.arg(&self.to.channel)
            .arg(only.unwrap_or_default())
            .arg(if self.options.always { "!" } else { "" })
            .arg(self.envelopes.len());
        for (bytes, _) in &self.envelopes {
            call.arg(bytes);
        }
    }

    /// Publishes the bundle to the session of this holder, without the script.
    fn publish(&self, holder: &Holder) -> Cmd {
        let mut payload = wire::plain_push(holder.session, self.bytes());
        for (bytes, _) in &self.envelopes {
            payload.extend_from_slice(bytes);
        }
        let mut publish = Cmd::with_capacity(3, payload.len() + self.to.channel.len() + 16);
        publish.arg("PUBLISH").arg(&self.to.channel).arg(payload);
        publish
    }

    /// Its messages, one by one.
    fn messages(self) -> impl Iterator<Item = Publish> {
        let Self {
            to,
            options,
            envelopes,
        } = self;
        envelopes.into_iter().map(move |(bytes, receipt)| Publish {
            to: Arc::clone(&to),
            options: options.clone(),
            bytes,
            receipt,
        })
    }
}

impl<'a> Batch<'a> {
    /// A pipeline for about so many jobs.
    pub(super) fn new(scripts: &'a Scripts, lives: Lives, jobs: usize) -> Self {
        let (pipeline, askers) = (Pipeline::new(), Vec::new());
        let names = jobs.min(NAMES_AT_ONCE);
        Self {
            scripts,
            lives,
            pipeline,
            askers,
            bundles: Vec::with_capacity(names),
            last: HashMap::with_capacity(names),
            notes: Vec::new(),
            size: 0,
        }
    }

    pub(super) fn add(&mut self, job: Job) {
        self.size += 1;
        match job {
            Job::Send(message) => self.bundle(message),
            Job::Save(note, caller) => {
                let is_anew = note.is_anew;
                self.notes.push((note, caller));
                if is_anew || self.notes.len() == NAMES_AT_ONCE {
                    self.flush();
                }
            }
            Job::Ask(command, caller) => {
                // It may be about an address that something is sent to, or written of, before.
                self.flush();
                self.push(command, Asker::Caller(caller));
            }
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The pipeline, and who hears each answer.
    pub(super) fn finish(mut self) -> (Pipeline, Vec<Asker>) {
        self.flush();
        (self.pipeline, self.askers)
    }

    fn flush(&mut self) {
        self.send_bundles();
        self.write_notes();
    }

    fn write_notes(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        let Some(deadline) = notes.iter().map(|(note, _)| note.deadline).min() else {
            return;
        };
        let keys = notes.iter().flat_map(|(note, _)| &note.keys[..3]);
        let args = notes.iter().map(|(note, _)| note.args.len());
        let bytes = notes.iter().flat_map(|(note, _)| &note.args);
        let (args, bytes) = (args.sum(), bytes.map(String::len).sum());
        let mut call = self.scripts.save.with_room(keys, args, bytes);
        call.arg(deadline)
            .arg(wire::millis(self.lives.record))
            .arg(wire::millis(self.lives.inbox));
        for (note, _) in &notes {
            call.arg(&note.args);
        }
        let writers = notes.into_iter().map(|(_, caller)| caller);
        self.push(call, Asker::Writers(writers.collect()));
    }

    fn bundle(&mut self, message: Publish) {
        let Publish {
            to,
            options,
            bytes,
            receipt,
        } = message;
        if let Some(&known) = self.last.get(&to) {
            let bundle = &mut self.bundles[known];
            if bundle.options == options && bundle.envelopes.len() < ENVELOPES_AT_ONCE {
                bundle.envelopes.push((bytes, receipt));
                return;
            }
            if bundle.options.direct != options.direct {
                // The one is published, the other is sent by the script: in this order.
                self.send_bundles();
            }
        }
        if self.bundles.len() == NAMES_AT_ONCE {
            self.send_bundles();
        }
        self.last.insert(Arc::clone(&to), self.bundles.len());
        self.bundles.push(Bundle {
            to,
            options,
            envelopes: vec![(bytes, receipt)],
        });
    }

    fn send_bundles(&mut self) {
        if self.bundles.is_empty() {
            return;
        }
        self.last.clear();
        let bundles = std::mem::take(&mut self.bundles);
        let (direct, bundles): (Vec<_>, Vec<_>) = bundles
            .into_iter()
            .partition(|bundle| bundle.options.direct.is_some());
        for bundle in direct {
            if let Some(holder) = bundle.options.direct.clone() {
                self.push(bundle.publish(&holder), Asker::Direct(bundle, holder));
            }
        }
        if bundles.is_empty() {
            return;
        }
        let keys = bundles
            .iter()
            .map(|bundle| &bundle.to.presence)
            .chain(bundles.iter().map(|bundle| &bundle.to.inbox));
        let bytes = bundles.iter().map(|bundle| bundle.bytes() + 128).sum();
        let args = bundles.iter().map(|bundle| bundle.envelopes.len() + 4);
        let mut call = self.scripts.send.with_room(keys, args.sum(), bytes);
        let Room {
            entries,
            bytes,
            share,
        } = Room::INBOX;
        call.arg(wire::millis(self.lives.inbox))
            .arg(self.lives.prefix)
            .arg(entries)
            .arg(bytes)
            .arg(share);
        for bundle in &bundles {
            bundle.write(&mut call);
        }
        self.push(call, Asker::Senders(bundles));
    }

    fn push(&mut self, command: Cmd, asker: Asker) {
        self.pipeline.add_command(command);
        self.askers.push(asker);
    }
}

/// What became of the commands of a pipeline.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Whom to tell what.
    settled: Vec<(Receipt, Outcome)>,
    /// What nobody listened to, in order: it was not delivered.
    pub(super) unheard: Vec<(Publish, Holder)>,
    /// An error that is not of one command alone.
    pub(super) error: Option<BrokerError>,
    /// Whether a new connection may mend it: it loads the scripts, or finds the primary.
    pub(super) reconnects: bool,
}

impl Verdicts {
    /// Whether somebody was not found.
    pub(super) fn has_absent(&self) -> bool {
        let mut outcomes = self.settled.iter().map(|(_, outcome)| outcome);
        outcomes.any(|outcome| matches!(outcome, Ok(Sent::Absent)))
    }

    /// Tells every sender.
    pub(super) fn tell(&mut self) {
        for (receipt, outcome) in self.settled.drain(..) {
            receipt.settle(outcome);
        }
    }

    /// What became of a bundle. What got through to somebody overtakes what did not before: that is refused.
    fn settle(&mut self, bundle: Bundle, outcomes: Vec<Outcome>) {
        let to = Arc::clone(&bundle.to);
        let mut got_through = false;
        for (message, outcome) in bundle.messages().zip(outcomes) {
            match outcome {
                Ok(Sent::Unheard(holder)) => self.unheard.push((message, holder)),
                outcome => {
                    got_through |= matches!(outcome, Ok(Sent::To(_)));
                    self.settled.push((message.receipt, outcome));
                }
            }
        }
        if got_through && !self.unheard.is_empty() {
            let settled = &mut self.settled;
            let overtaken = self.unheard.extract_if(.., |(message, _)| message.to == to);
            settled.extend(
                overtaken.map(|(message, holder)| (message.receipt, Ok(Sent::Unheard(holder)))),
            );
        }
    }
}

impl Asker {
    /// Takes what Redis answered.
    pub(super) fn hears(self, answer: Value, known: &mut KnownHolders, verdicts: &mut Verdicts) {
        if let Value::ServerError(error) = answer {
            let told = match error.code() {
                "OOM" => BrokerError::NoMemory,
                _ => BrokerError::unreachable(&error),
            };
            self.fail(&told, verdicts);
            match error.code() {
                // A claim or a renewal that came too late says nothing of the store.
                "LATE" => {}
                code => {
                    verdicts.reconnects |= matches!(code, "NOSCRIPT" | "READONLY" | "MASTERDOWN");
                    verdicts.error = Some(told);
                }
            }
            return;
        }
        match (self, answer) {
            (Self::Caller(caller), answer) => drop(caller.send(Ok(answer))),
            (Self::Direct(bundle, holder), Value::Int(listeners)) => {
                let outcome = match listeners {
                    0 if !bugs::has(Bug::PublishCountsTheFrozen) => Ok(Sent::Unheard(holder)),
                    _ => Ok(Sent::To(holder)),
                };
                let outcomes = vec![outcome; bundle.envelopes.len()];
                verdicts.settle(bundle, outcomes);
            }
            (Self::Senders(bundles), Value::Array(results)) => {
                // A result that is missing leaves its receipts unsettled, which tells their senders.
                for (bundle, result) in bundles.into_iter().zip(results) {
                    let outcomes = known.outcomes(result, bundle.envelopes.len());
                    verdicts.settle(bundle, outcomes);
                }
            }
            (Self::Writers(callers), Value::Array(results)) => {
                for (caller, result) in callers.into_iter().zip(results) {
                    drop(caller.send(match result {
                        Value::ServerError(error) => Err(BrokerError::unreachable(&error)),
                        result => Ok(result),
                    }));
                }
            }
            (senders, _) => senders.fail(&wire::unexpected(), verdicts),
        }
    }

    /// The outcome is unknown.
    pub(super) fn fail(self, error: &BrokerError, verdicts: &mut Verdicts) {
        let bundles = match self {
            Self::Senders(bundles) => bundles,
            Self::Direct(bundle, _) => vec![bundle],
            // Whoever gave up waiting needs no answer.
            Self::Caller(caller) => return drop(caller.send(Err(error.clone()))),
            Self::Writers(callers) => {
                for caller in callers {
                    drop(caller.send(Err(error.clone())));
                }
                return;
            }
        };
        for bundle in bundles {
            let failed = bundle
                .messages()
                .map(|message| (message.receipt, Err(error.clone())));
            verdicts.settled.extend(failed);
        }
    }
}
