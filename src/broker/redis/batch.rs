//! One pipeline to Redis, filled from the queue of a publisher.
//!
//! The envelopes of many senders share one call of `send.lua`, and those to one receiver one push. The call is half of
//! what a signal costs Redis, and publishing most of the rest: sixteen signals to one user in one call cost a third of
//! sixteen calls (measured). Envelopes to one address keep their order, and no other request about that address
//! overtakes them.

use std::sync::Arc;

use hashbrown::HashMap;
use redis::{Cmd, Pipeline};

use super::bundle::Bundle;
use super::reply::millis;
use super::request::{Destination, Publish, ReplySender, Request, Save};
use super::scripts::Scripts;
use super::store::Ttls;
use super::waiter::Waiter;
use crate::broker::InboxLimits;

/// How many names one script call serves at most. Redis runs nothing else meanwhile.
const NAMES_PER_CALL: usize = 64;
/// How many envelopes to one name one call carries at most.
const ENVELOPES_PER_NAME: usize = 256;

/// A pipeline under construction.
pub(super) struct Batch<'a> {
    scripts: &'a Scripts,
    ttls: Ttls,
    pipeline: Pipeline,
    waiters: Vec<Waiter>,
    /// The envelopes of the next call of `send.lua`.
    bundles: Vec<Bundle>,
    /// The index of each receiver's last bundle.
    last: HashMap<Arc<Destination>, usize>,
    /// The updates of the next call of `save.lua`, which runs behind that call of `send.lua`.
    saves: Vec<(Save, ReplySender)>,
    /// How many requests were added.
    size: usize,
}

impl<'a> Batch<'a> {
    /// A pipeline for about so many requests.
    pub(super) fn new(scripts: &'a Scripts, ttls: Ttls, requests: usize) -> Self {
        let (pipeline, waiters) = (Pipeline::new(), Vec::new());
        let names = requests.min(NAMES_PER_CALL);
        Self {
            scripts,
            ttls,
            pipeline,
            waiters,
            bundles: Vec::with_capacity(names),
            last: HashMap::with_capacity(names),
            saves: Vec::new(),
            size: 0,
        }
    }

    pub(super) fn add(&mut self, request: Request) {
        self.size += 1;
        match request {
            Request::Publish(message) => self.bundle(message),
            Request::Save(save, reply_to) => {
                let is_anew = save.is_anew;
                self.saves.push((save, reply_to));
                if is_anew || self.saves.len() == NAMES_PER_CALL {
                    self.flush();
                }
            }
            Request::Command(command, reply_to) => {
                // The command may concern an address of an earlier request, which it must not overtake.
                self.flush();
                self.push(command, Waiter::Command(reply_to));
            }
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The pipeline, and who waits for each of its replies.
    pub(super) fn finish(mut self) -> (Pipeline, Vec<Waiter>) {
        self.flush();
        (self.pipeline, self.waiters)
    }

    fn flush(&mut self) {
        self.flush_bundles();
        self.flush_saves();
    }

    fn flush_saves(&mut self) {
        let saves = std::mem::take(&mut self.saves);
        let Some(deadline) = saves.iter().map(|(save, _)| save.deadline).min() else {
            return;
        };
        let keys = saves.iter().flat_map(|(save, _)| &save.keys[..3]);
        let args = saves.iter().map(|(save, _)| save.args.len());
        let bytes = saves.iter().flat_map(|(save, _)| &save.args);
        let (args, bytes) = (args.sum(), bytes.map(String::len).sum());
        let mut call = self.scripts.save.with_capacity(keys, args, bytes);
        call.arg(deadline)
            .arg(millis(self.ttls.record))
            .arg(millis(self.ttls.inbox));
        for (save, _) in &saves {
            call.arg(&save.args);
        }
        let reply_tos = saves.into_iter().map(|(_, reply_to)| reply_to);
        self.push(call, Waiter::Saves(reply_tos.collect()));
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
            if bundle.options == options && bundle.envelopes.len() < ENVELOPES_PER_NAME {
                bundle.envelopes.push((bytes, receipt));
                return;
            }
            if bundle.options.direct != options.direct {
                // One is published directly, the other goes through the script: keep their order.
                self.flush_bundles();
            }
        }
        if self.bundles.len() == NAMES_PER_CALL {
            self.flush_bundles();
        }
        self.last.insert(Arc::clone(&to), self.bundles.len());
        self.bundles.push(Bundle {
            to,
            options,
            envelopes: vec![(bytes, receipt)],
        });
    }

    fn flush_bundles(&mut self) {
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
                self.push(bundle.publish(&holder), Waiter::Direct(bundle, holder));
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
        let mut call = self.scripts.send.with_capacity(keys, args.sum(), bytes);
        let InboxLimits {
            entries,
            bytes,
            sender_weight,
        } = InboxLimits::DEFAULT;
        call.arg(millis(self.ttls.inbox))
            .arg(self.ttls.prefix)
            .arg(entries)
            .arg(bytes)
            .arg(sender_weight);
        for bundle in &bundles {
            bundle.write(&mut call);
        }
        self.push(call, Waiter::Bundles(bundles));
    }

    fn push(&mut self, command: Cmd, waiter: Waiter) {
        self.pipeline.add_command(command);
        self.waiters.push(waiter);
    }
}
