//! One call, as far as it decides alone.

use serde_json::Value;
use tokio::time::Instant;

use super::Peer;
use crate::wire::Description;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// Somebody calls: [accept](super::Calls::accept) or [hang up](super::Calls::hang_up).
    Ringing,
    /// We call.
    Calling,
    /// Both sides know of each other.
    Connecting,
    /// The peer has a connection.
    Connected,
}

/// A call with somebody.
pub(super) struct Call<P> {
    pub(super) number: u64,
    pub(super) state: CallState,
    pub(super) peer: Option<P>,
    pub(super) begun: Instant,
    /// The other's last description, and ours.
    pub(super) theirs: Option<Description>,
    pub(super) ours: Option<Description>,
    /// Candidates that came before the description they belong to.
    pub(super) early: Vec<Value>,
    pub(super) is_ready: bool,
}

impl<P: Peer> Call<P> {
    pub(super) fn is_being_set_up(&self) -> bool {
        matches!(self.state, CallState::Calling | CallState::Connecting)
    }

    /// Gives the peer the candidates that came early.
    pub(super) async fn flush(&mut self) {
        self.is_ready = true;
        if let Some(peer) = &mut self.peer {
            for candidate in std::mem::take(&mut self.early) {
                peer.candidate(&candidate).await;
            }
        }
    }

    /// Whether an offer is of another call: that of another peer connection.
    pub(super) fn is_another(&self, offer: &Description) -> bool {
        let is_set_up = matches!(self.state, CallState::Connecting | CallState::Connected);
        let Some(known) = self.theirs.as_ref().filter(|_| is_set_up) else {
            return false;
        };
        match (&known.leg, &offer.leg) {
            (Some(known), Some(new)) => known != new,
            _ => origin(&known.sdp) != origin(&offer.sdp),
        }
    }
}

/// The first two words of the line `o=`, which are the same for all descriptions of a peer connection.
fn origin(sdp: &str) -> Option<(&str, &str)> {
    let line = sdp.lines().find_map(|line| line.strip_prefix("o="))?;
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?))
}

/// The lines that distinguish a description from others; candidates that were found meanwhile do not change them.
pub(super) fn mark(description: &Description) -> String {
    let lines = description.sdp.lines();
    let marks: Vec<_> = lines
        .filter(|line| line.starts_with("o=") || line.starts_with("a=ice-ufrag:"))
        .collect();
    marks.join(",")
}
