//! Envelopes that one receiver gets in one push.

use std::sync::Arc;

use redis::Cmd;

use super::channel;
use super::request::{Destination, Publish};
use crate::broker::{Holder, Receipt, SendOptions};

/// Consecutive envelopes to one receiver with the same options.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) to: Arc<Destination>,
    pub(super) options: SendOptions,
    pub(super) envelopes: Vec<(Vec<u8>, Receipt)>,
}

impl Bundle {
    pub(super) fn bytes(&self) -> usize {
        let sizes = self.envelopes.iter().map(|(bytes, _)| bytes.len());
        sizes.sum()
    }

    /// Appends the bundle to a call of `send.lua`.
    pub(super) fn write(&self, call: &mut Cmd) {
        let only = self.options.only.map(|session| session.to_string());
        call.arg(&self.to.channel)
            .arg(only.unwrap_or_default())
            .arg(match (self.options.always, self.options.in_call) {
                (true, _) => "!",
                (false, true) => "+",
                (false, false) => "",
            })
            .arg(self.envelopes.len());
        for (bytes, _) in &self.envelopes {
            call.arg(bytes);
        }
    }

    /// Publishes the bundle to the plain session of this holder, without the script.
    pub(super) fn publish(&self, holder: &Holder) -> Cmd {
        let mut payload = channel::direct(holder.session, self.bytes());
        for (bytes, _) in &self.envelopes {
            payload.extend_from_slice(bytes);
        }
        let mut publish = Cmd::with_capacity(3, payload.len() + self.to.channel.len() + 16);
        publish.arg("PUBLISH").arg(&self.to.channel).arg(payload);
        publish
    }

    /// The envelopes, one by one.
    pub(super) fn into_messages(self) -> impl Iterator<Item = Publish> {
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
