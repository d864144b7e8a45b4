//! Order across a full inbox: what a sender has queued behind an envelope that found no room is refused too.
//! Otherwise it could find room, and overtake the one before it when its sender repeats that.

use std::sync::Arc;

use super::request::{Destination, Publish, Request};
use crate::broker::{Holder, Sent};

/// An inbox that had no room for an envelope of this sender.
#[derive(Debug)]
pub(super) struct FullInbox {
    to: Arc<Destination>,
    sender: Vec<u8>,
    holder: Holder,
}

impl FullInbox {
    /// It had no room for this message.
    pub(super) fn of(message: &Publish, holder: Holder) -> Self {
        Self {
            to: Arc::clone(&message.to),
            sender: message.sender().to_vec(),
            holder,
        }
    }

    fn is_before(&self, message: &Publish) -> bool {
        !message.options.always && self.to == message.to && self.sender == message.sender()
    }
}

/// Refuses a request that is behind one that found no room. Otherwise returns it.
pub(super) fn refuse_behind(full: &[FullInbox], request: Request) -> Option<Request> {
    let Request::Publish(message) = request else {
        return Some(request);
    };
    let Some(inbox) = full.iter().find(|inbox| inbox.is_before(&message)) else {
        return Some(Request::Publish(message));
    };
    let refused = Sent::Full(inbox.holder.clone());
    message.receipt.settle(Ok(refused));
    None
}
