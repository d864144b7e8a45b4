//! What leaves a lane at once: the envelopes of many senders share one script call, those to one user one push.
//!
//! Half of what a signal costs Redis is the call of the script, and most of the rest is the publishing: shared, sixteen signals to one user
//! cost a third of sixteen calls (measured). Envelopes to one address keep their order, and nothing else about that address overtakes them.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::connect::Lives;
use super::lane::{Caller, Job};
use super::ledger::Ledger;
use super::scripts::Scripts;
use super::wire::{self, KnownHolders};
use crate::fabric::{FabricError, Outcome, Postage, Receipt, Room, ring};
use crate::model::Correlation;

/// How many names one call serves at most: others wait for Redis meanwhile.
const NAMES_AT_ONCE: usize = 64;
/// How many envelopes to one name one call carries at most: the script reads the rest of the number as something else.
const SHEETS_AT_ONCE: usize = 256;
/// How often an inbox is cut to its length.
const CUT_ONE_IN: usize = 16;
/// To how many entries an inbox is cut that was sent something of a usual size.
const PLAIN_RING: usize = ring(0);
/// What is added to the count of envelopes that bear ids…
const WITH_IDS: usize = 100_000;
/// …and of those that are urgent.
const URGENT: usize = 200_000;

/// An envelope on its way.
#[derive(Debug)]
pub(super) struct Letter {
    /// The receiver's presence key, inbox and channel.
    pub(super) to: Arc<Destination>,
    /// How it is carried.
    pub(super) postage: Postage,
    /// What is carried.
    pub(super) sheet: Sheet,
    /// Who hears what becomes of it; nobody, of one that is sent again.
    pub(super) receipt: Option<Receipt>,
}

/// An envelope as it is sent.
#[derive(Debug)]
pub(super) struct Sheet {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// The id under which it is delivered once.
    pub(super) once: Option<Correlation>,
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
    /// The letters of the next call, by receiver, in the order of their first one.
    bundles: Vec<Bundle>,
    /// The last bundle of each receiver.
    last: HashMap<Arc<Destination>, usize>,
    /// How many jobs it holds.
    size: usize,
}

/// Letters that one receiver gets at once.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) to: Arc<Destination>,
    pub(super) postage: Postage,
    pub(super) sheets: Vec<(Sheet, Option<Receipt>)>,
}

/// Who hears the answer to one command.
pub(super) enum Asker {
    /// The senders of each bundle of a call.
    Senders(Vec<Bundle>),
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
    /// The bytes of the only envelope, if it is of a usual size and for whoever has the name: most are.
    fn plain(&self) -> Option<&[u8]> {
        let Postage {
            only: None,
            urgent: false,
        } = self.postage
        else {
            return None;
        };
        match &self.sheets[..] {
            [(Sheet { bytes, once: None }, _)] if ring(bytes.len()) == PLAIN_RING => Some(bytes),
            _ => None,
        }
    }

    /// The size of the largest envelope, in bytes.
    fn largest(&self) -> usize {
        let sizes = self.sheets.iter().map(|(sheet, _)| sheet.bytes.len());
        sizes.max().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        let ids = |sheet: &Sheet| sheet.once.as_ref().map_or(0, |id| id.0.len());
        let sizes = self
            .sheets
            .iter()
            .map(|(sheet, _)| sheet.bytes.len() + ids(sheet));
        sizes.sum::<usize>() + 128
    }

    fn has_ids(&self) -> bool {
        self.sheets.iter().any(|(sheet, _)| sheet.once.is_some())
    }

    /// Writes the bundle as the script reads it.
    fn write(&self, call: &mut Cmd) {
        if let Some(envelope) = self.plain() {
            call.arg(&self.to.channel).arg(envelope);
            return;
        }
        let count = self.sheets.len();
        let cut = count > rand::random_range(0..CUT_ONE_IN);
        let hundreds = if cut { ring(self.largest()) / 100 } else { 0 };
        let with_ids = self.has_ids();
        let how =
            if with_ids { WITH_IDS } else { 0 } + if self.postage.urgent { URGENT } else { 0 };
        let only = self.postage.only.map(|session| session.to_string());
        call.arg("")
            .arg(&self.to.channel)
            .arg(only.unwrap_or_default())
            .arg(count + 1000 * hundreds + how);
        for (sheet, _) in &self.sheets {
            call.arg(&sheet.bytes);
            if with_ids {
                call.arg(sheet.once.as_ref().map_or("", |id| &*id.0));
            }
        }
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
            size: 0,
        }
    }

    pub(super) fn add(&mut self, job: Job) {
        self.size += 1;
        match job {
            Job::Send(letter) => self.bundle(letter),
            Job::Ask(command, caller) => {
                // It may be about an address that something is sent to before.
                self.send_bundles();
                self.push(command, Asker::Caller(caller));
            }
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The pipeline, and who hears each answer.
    pub(super) fn finish(mut self) -> (Pipeline, Vec<Asker>) {
        self.send_bundles();
        (self.pipeline, self.askers)
    }

    fn bundle(&mut self, letter: Letter) {
        let Letter {
            to,
            postage,
            sheet,
            receipt,
        } = letter;
        if let Some(&known) = self.last.get(&to)
            && self.bundles[known].postage == postage
            && self.bundles[known].sheets.len() < SHEETS_AT_ONCE
        {
            self.bundles[known].sheets.push((sheet, receipt));
            return;
        }
        if self.bundles.len() == NAMES_AT_ONCE {
            self.send_bundles();
        }
        self.last.insert(Arc::clone(&to), self.bundles.len());
        self.bundles.push(Bundle {
            to,
            postage,
            sheets: vec![(sheet, receipt)],
        });
    }

    fn send_bundles(&mut self) {
        if self.bundles.is_empty() {
            return;
        }
        self.last.clear();
        let bundles = std::mem::take(&mut self.bundles);
        let keys = bundles
            .iter()
            .map(|bundle| &bundle.to.presence)
            .chain(bundles.iter().map(|bundle| &bundle.to.inbox));
        let bytes = bundles.iter().map(Bundle::bytes).sum();
        let args = bundles.iter().map(|bundle| 2 * bundle.sheets.len() + 4);
        let mut call = self.scripts.send.with_room(keys, args.sum(), bytes);
        let Room {
            entries,
            bytes,
            share,
        } = Room::INBOX;
        call.arg(wire::millis(self.lives.inbox))
            .arg(wire::millis(self.lives.resumable_inbox))
            .arg(self.lives.prefix)
            .arg(entries)
            .arg(bytes)
            .arg(share)
            .arg(PLAIN_RING)
            // By chance, so that no pattern of senders keeps an inbox from being cut.
            .arg(rand::random_range(0..CUT_ONE_IN));
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

impl Asker {
    /// Tells everybody what Redis answered. An error that is not of this command alone is returned.
    pub(super) fn hears(
        self,
        answer: Value,
        known: &mut KnownHolders,
        ledger: &mut Ledger,
    ) -> Result<(), FabricError> {
        if let Value::ServerError(error) = answer {
            let told = match error.code() {
                "OOM" => FabricError::NoMemory,
                _ => FabricError::unreachable(&error),
            };
            self.fail(&told, ledger);
            // A claim or a renewal that came too late says nothing of the connection. The command is not repeated.
            return if error.code() == "LATE" {
                Ok(())
            } else {
                Err(told)
            };
        }
        match (self, answer) {
            (Self::Caller(caller), answer) => drop(caller.send(Ok(answer))),
            (Self::Senders(bundles), Value::Array(results)) => {
                // A result that is missing leaves its receipts unsettled, which tells their senders.
                for (bundle, result) in bundles.into_iter().zip(results) {
                    let outcomes = known.outcomes(result, bundle.sheets.len());
                    settle(bundle, outcomes, ledger);
                }
            }
            (senders @ Self::Senders(_), _) => senders.fail(&wire::unexpected(), ledger),
        }
        Ok(())
    }

    /// Tells everybody that the outcome is unknown.
    pub(super) fn fail(self, error: &FabricError, ledger: &mut Ledger) {
        match self {
            Self::Senders(bundles) => {
                for bundle in bundles {
                    let outcomes = vec![Err(error.clone()); bundle.sheets.len()];
                    settle(bundle, outcomes, ledger);
                }
            }
            // Whoever gave up waiting needs no answer.
            Self::Caller(caller) => drop(caller.send(Err(error.clone()))),
        }
    }
}

fn settle(bundle: Bundle, outcomes: Vec<Outcome>, ledger: &mut Ledger) {
    let Bundle {
        to,
        postage,
        sheets,
    } = bundle;
    let mut outcomes = outcomes.into_iter();
    for (sheet, receipt) in sheets {
        let outcome = outcomes.next().unwrap_or_else(|| Err(wire::unexpected()));
        ledger.enter(&to, postage, sheet, receipt.is_none(), &outcome);
        if let Some(receipt) = receipt {
            receipt.settle(outcome);
        }
    }
}
