//! What the messages of a session mean for its calls.

use super::call::{CallState, mark};
use super::{Calls, Connected, Event, Peer, PeerError};
use crate::wire::{Description, Message};

/// How many candidates wait for the description they belong to.
const EARLY: usize = 256;

impl<P: Peer, F> Calls<P, F>
where
    F: FnMut(&str, Connected) -> Result<P, PeerError>,
{
    pub(super) async fn hear(&mut self, message: Message) {
        let name = message.name.clone();
        match message.kind.as_str() {
            kind @ ("offer" | "answer") => {
                let described = serde_json::from_value::<Description>(message.body);
                let Some(mut description) = described.ok().filter(|known| !known.sdp.is_empty())
                else {
                    return;
                };
                kind.clone_into(&mut description.kind);
                self.hear_description(&name, description).await;
            }
            "candidate" => {
                if let Some(call) = self.open.get_mut(&name) {
                    match &mut call.peer {
                        Some(peer) if call.is_ready => peer.candidate(&message.body).await,
                        _ if call.early.len() < EARLY => call.early.push(message.body),
                        _ => {}
                    }
                }
            }
            "leave" if self.open.contains_key(&name) => {
                let given = message.body.as_str().unwrap_or_default().to_owned();
                let reason = self.byes.remove(&name).unwrap_or(given);
                self.end(&name, &reason);
            }
            "message" if self.notes_bye(&message) => {}
            "missed" => {
                for name in self.open.keys().cloned().collect::<Vec<_>>() {
                    if message.resumed {
                        self.repeat(&name);
                    } else {
                        self.end(&name, "lost");
                    }
                }
                self.events.push_back(Event::Message(message));
            }
            _ => self.events.push_back(Event::Message(message)),
        }
    }

    async fn hear_description(&mut self, name: &str, heard: Description) {
        let call = self.open.get(name);
        if heard.kind == "offer" && call.is_none_or(|call| call.is_another(&heard)) {
            if call.is_some() {
                self.end(name, "hangup");
            }
            self.begin(name, CallState::Ringing, Some(heard));
            self.events.push_back(Event::Ringing(name.to_owned()));
            return;
        }
        let Some(call) = self.open.get_mut(name) else {
            return;
        };
        if heard.kind == "answer" {
            self.hear_answer(name, heard).await;
            return;
        }
        match call.state {
            CallState::Ringing => call.theirs = Some(heard),
            CallState::Calling => self.collide(name, heard).await,
            // It has not heard our answer.
            _ if call
                .theirs
                .as_ref()
                .is_some_and(|known| mark(known) == mark(&heard)) =>
            {
                self.repeat(name);
            }
            // What cannot be answered ends the call, and the app is told so.
            _ => drop(self.answer(name, heard).await),
        }
    }

    async fn hear_answer(&mut self, name: &str, answer: Description) {
        let Some(call) = self.open.get_mut(name) else {
            return;
        };
        let offer = call.ours.as_ref().map(mark);
        let is_ours = answer.to.is_none() || answer.to == offer;
        let (CallState::Calling, true, Some(peer)) =
            (call.state, offer.is_some() && is_ours, &mut call.peer)
        else {
            return;
        };
        let accepted = peer.accept(&answer).await;
        call.state = CallState::Connecting;
        call.theirs = Some(answer);
        match accepted {
            Ok(()) => call.flush().await,
            Err(_) => self.leave(name, "failed"),
        }
    }

    /// The browser's client library gives way to all clients of other makes, which it knows by their having no leg.
    /// Among these the smaller name gives way.
    async fn collide(&mut self, name: &str, offer: Description) {
        if offer.leg.is_some() || self.session.name() > name {
            return;
        }
        if let Some(call) = self.open.get_mut(name) {
            call.peer = None;
            call.ours = None;
            call.state = CallState::Connecting;
            drop(self.answer(name, offer).await);
        }
    }

    /// The browser's client library says why it is about to leave.
    fn notes_bye(&mut self, message: &Message) -> bool {
        let Some(bye) = message.body.pointer("/switchboard/bye") else {
            return message.body.get("switchboard").is_some();
        };
        if let Some(bye) = bye
            .as_str()
            .filter(|_| self.open.contains_key(&message.name))
        {
            self.byes.insert(message.name.clone(), bye.to_owned());
        }
        true
    }
}
