//! Conversations that outlive their node: what the next one must know to go on, and how it does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::hearing::Took;
use super::{Session, Socket};
use crate::dialect::Dialect;
use crate::exchange::{Exchange, Proof, ResumeError, Seat};
use crate::model::{
    Address, CloseReason, Command, Correlation, EntryId, Event, Frame, Refusal, Secret, SecretHash,
    UserName,
};

/// How long the fabric may take until somebody else should go on with the conversation.
const GOES_ON_WITHIN: Duration = Duration::from_secs(30);

/// A conversation whose transport keeps what its client says until it was dealt with, and what it is told.
#[derive(Debug)]
pub struct Kept {
    /// Makes the secrets of its logins, so that whoever goes on makes the same.
    pub secret: Secret,
    /// How far others have come with it; `None` if it begins here.
    pub before: Option<Standing>,
}

/// How far a conversation has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Everything that the client said up to here was dealt with, and what came of it was said.
    pub heard: Option<EntryId>,
    /// The last place of its inbox that the client was told of.
    pub told: Option<EntryId>,
    /// Who has logged in, and what is stored of what proves it.
    pub user: Option<(UserName, SecretHash)>,
    /// Whom it watches.
    pub watched: BTreeSet<UserName>,
}

/// What a session keeps for the next one.
#[derive(Debug)]
pub(super) struct Keeper {
    secret: Secret,
    /// Others had it before: what they have done, but not noted, is done again.
    is_taken: bool,
    /// What is being dealt with.
    place: Option<EntryId>,
    now: Standing,
    /// What was noted last.
    noted: Standing,
}

impl Keeper {
    pub(super) fn new(kept: Kept) -> Self {
        let is_taken = kept.before.is_some();
        let now = kept.before.unwrap_or_default();
        Self {
            secret: kept.secret,
            is_taken,
            place: None,
            noted: now.clone(),
            now,
        }
    }

    /// From here on everything is about what was said at this place.
    pub(super) fn hears(&mut self, place: EntryId) {
        self.place = Some(place);
    }

    /// What is done again is delivered once: a signal gets an id of ours if its client gave it none.
    pub(super) fn marks(&self, command: &mut Command) {
        if let (Command::Send { id, .. }, Some(place)) = (command, self.place) {
            id.get_or_insert_with(|| Correlation::of_place(place));
        }
    }

    /// The client is told of this; what it would not understand is left out.
    pub(super) fn says(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Ack { id, .. } if id.is_of_place() => None,
            Event::Refused { refusal, id, name } => Some(Event::Refused {
                refusal,
                id: id.filter(|id| !id.is_of_place()),
                name,
            }),
            Event::Signal { seq, .. } | Event::Left { seq, .. } => {
                self.now.told = self.now.told.max(seq);
                Some(event)
            }
            event => Some(event),
        }
    }

    /// It watches these, or does not any more.
    pub(super) fn watches(&mut self, names: &[UserName], watch: Option<bool>) {
        match watch {
            Some(true) => self.now.watched.extend(names.iter().cloned()),
            Some(false) => self.now.watched.retain(|name| !names.contains(name)),
            None => {}
        }
    }

    /// What is to be noted with what is said now, if there is news.
    pub(super) fn standing(&mut self, seat: Option<&Seat>) -> Option<Standing> {
        if seat.is_none_or(Seat::is_quiet) {
            self.now.heard = self.place.take().or(self.now.heard);
        }
        let user = seat.and_then(|seat| Some((seat.name().clone(), seat.proof()?.clone())));
        self.now.user = user.or_else(|| self.now.user.take());
        (self.now != self.noted).then(|| {
            self.noted.clone_from(&self.now);
            self.now.clone()
        })
    }

    /// Whether something that was heard may be noted as dealt with.
    pub(super) fn is_settled(&self, seat: Option<&Seat>) -> bool {
        self.place.is_some() && seat.is_none_or(Seat::is_quiet)
    }

    /// Logs in with a secret that whoever goes on makes again; a session that a carrier before has begun with it is the client's.
    pub(super) async fn login(
        &self,
        exchange: &Arc<Exchange>,
        address: Address,
    ) -> Result<Seat, ResumeError> {
        let secret = self.secret.derived("login");
        if self.is_taken {
            let proof = Proof::Secret(secret.clone());
            match exchange.resume(address.clone(), proof, None).await {
                // Nobody has begun it, or the name is somebody else's.
                Err(ResumeError::WrongSecret | ResumeError::Refused(Refusal::ResumeFailed)) => {}
                found => return found,
            }
        }
        let login = exchange.login(address, Some(secret)).await;
        login.map_err(ResumeError::Refused)
    }
}

impl<S: Socket, D: Dialect> Session<S, D> {
    /// Hears a frame that is kept until it was dealt with.
    pub(super) async fn receive_kept(
        &mut self,
        frame: &Frame,
        place: EntryId,
    ) -> Result<Took, CloseReason> {
        if let Some(keeper) = &mut self.keeper {
            keeper.hears(place);
        }
        self.hear(frame).await
    }

    /// Goes on with the session that another node had.
    pub(super) async fn go_on(&mut self) -> Result<(), CloseReason> {
        let Some(Standing {
            told,
            user: Some((name, hash)),
            watched,
            ..
        }) = self.keeper.as_ref().map(|keeper| keeper.now.clone())
        else {
            return Ok(());
        };
        let address = Address::new(self.call.realm.clone(), name);
        let begun = Instant::now();
        let exchange = Arc::clone(&self.call.exchange);
        let seat = loop {
            let proof = Proof::Hash(hash.clone());
            match exchange.resume(address.clone(), proof, told).await {
                Ok(seat) => break seat,
                Err(ResumeError::Unheard(seat, reason)) => {
                    self.seat = Some(*seat);
                    return Err(reason);
                }
                Err(ResumeError::Refused(Refusal::Unavailable { retry_after })) => {
                    if begun.elapsed() > GOES_ON_WITHIN || self.call.phase.is_draining() {
                        return Err(CloseReason::Overloaded);
                    }
                    sleep(retry_after).await;
                }
                Err(_) => return Err(CloseReason::NameLost),
            }
        };
        self.present = Some(
            exchange
                .telemetry()
                .metrics
                .logged_in(self.transport(), D::NAME),
        );
        self.heartbeat.logged_in();
        // When the client was told of ICE servers, only the one before knew.
        let runs_out = self.call.ice.renewed_after();
        self.heartbeat.renews_in(runs_out.map(|_| Duration::ZERO));
        let seat = self.seat.insert(seat);
        if !watched.is_empty() {
            let watched = watched.into_iter().collect();
            // Should it fail, nobody is told of changes until it asks again.
            if let Ok(users) = Box::pin(seat.presence(watched, Some(true))).await {
                self.tell(Event::Presence { users, id: None });
            }
        }
        self.say().await
    }
}
