//! Decodes and executes what the client sends.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};

use super::runner::SessionEvent;
use super::state::Input;
use super::{Received, Session, Socket, http};
use crate::bugs::{self, Bug};
use crate::limits::TooFast;
use crate::model::{
    CloseReason, Command, Correlation, Event, Frame, Refusal, SignalKind, UserName,
};
use crate::protocol::{Codec, DecodeError};

/// How many frames are handled before the replies are written.
const HEARD_AT_ONCE: usize = 32;

/// What a login costs its address: it is some ten commands of the store.
const LOGIN_COST: u32 = 20;
/// What an offer costs: it is looked for whoever has the name, and a call begins.
const OFFER_COST: u32 = 4;
/// For how many names a question about presence costs as much as a candidate.
const NAMES_A_COST: usize = 4;

/// Whether a command waited for the broker. If so, other events get a turn before the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    NoTime,
    Long,
}

impl<S: Socket, D: Codec> Session<S, D> {
    /// Handles one frame, and those that have already arrived behind it.
    pub(super) async fn receive(&mut self, first: Option<Received>) -> Result<(), CloseReason> {
        let mut received = first;
        for heard in 1.. {
            match received {
                None => return Err(CloseReason::Dropped),
                Some(Received::Closed { for_good }) => return Err(self.closed(for_good)),
                Some(Received::TooLarge) => return Err(CloseReason::TooLarge),
                Some(Received::Taken) => return Err(CloseReason::Replaced),
                Some(Received::Expired) => return Err(CloseReason::Expired),
                Some(Received::Alive) => self.alive(),
                Some(Received::Answered(ping)) => {
                    self.alive();
                    self.on(Input::Ponged(ping));
                }
                Some(Received::Posted(frame, ours)) => {
                    self.alive();
                    if let Some(http) = &mut self.http {
                        http.mark_received();
                    }
                    if self.handle_frame(&frame, Some(ours)).await? == Took::Long {
                        break;
                    }
                }
                Some(Received::Frame(frame)) => {
                    self.alive();
                    if self.handle_frame(&frame, None).await? == Took::Long {
                        break;
                    }
                }
            }
            if heard == HEARD_AT_ONCE || self.is_busy() {
                break;
            }
            let Some(next) = self.socket.next().now_or_never() else {
                break;
            };
            received = next;
        }
        // Handles outcomes that arrived without a wake-up.
        self.handle(SessionEvent::Outcome);
        Ok(())
    }

    async fn handle_frame(
        &mut self,
        frame: &Frame,
        ours: Option<Correlation>,
    ) -> Result<Took, CloseReason> {
        if self.is_deaf {
            return Ok(Took::NoTime);
        }
        // What follows a refused signal must be held back, so refusals that are known come first.
        self.handle(SessionEvent::Outcome);
        if let Err(too_fast) = self.context.rate.check() {
            let refusal = slowed_down(too_fast)?;
            // Decode the frame anyway: a client that waits for the answer to its id gets one.
            match self.codec.decode(frame) {
                Err(DecodeError { id, name, .. }) => self.refuse(refusal, id, name),
                Ok(Command::Send { id, to, .. }) => self.refuse_signal(refusal, id, to),
                Ok(command) => self.refuse(refusal, command.into_id(), None),
            }
            return Ok(Took::NoTime);
        }
        match self.codec.decode(frame) {
            Ok(mut command) => {
                http::set_id(&mut command, ours);
                if let Err(retry_after) = self.context.address.check(cost(&command)) {
                    return self.refuse_dear(command, retry_after);
                }
                self.act(command).await
            }
            Err(DecodeError { refusal, id, name }) => {
                self.is_deaf = bugs::has(Bug::DeafAfterDirt);
                self.refuse(refusal, id, name);
                Ok(Took::NoTime)
            }
        }
    }

    /// Refuses what is above the limit of the client's address.
    fn refuse_dear(
        &mut self,
        command: Command,
        retry_after: Duration,
    ) -> Result<Took, CloseReason> {
        let refusal = slowed_down(self.context.rate.refuse(retry_after))?;
        match command {
            Command::Login { id, .. } => self.tell(Event::LoginRefused { refusal, id }),
            Command::Send { id, to, .. } => self.refuse_signal(refusal, id, to),
            command => self.refuse(refusal, command.into_id(), None),
        }
        Ok(Took::NoTime)
    }

    fn refuse_signal(&mut self, why: Refusal, id: Option<Correlation>, to: UserName) {
        self.on(Input::Refused {
            to: to.clone(),
            id: id.clone(),
            why: why.clone(),
        });
        self.refuse(why, id, Some(to));
    }

    async fn act(&mut self, command: Command) -> Result<Took, CloseReason> {
        match (command, &mut self.runner) {
            (Command::Ping { id, seq }, runner) => {
                if let (Some(seq), Some(runner)) = (seq, runner) {
                    runner.on(Input::Confirm(seq));
                }
                self.tell(Event::Pong { id });
            }
            (Command::Login { request, id }, None) => {
                Box::pin(self.login(request, id)).await?;
                return Ok(Took::Long);
            }
            (Command::Login { request, id }, Some(_)) => self.repeat_login(&request, id),
            (command, None) => self.refuse(Refusal::NotLoggedIn, command.into_id(), None),
            (
                Command::Send {
                    to,
                    signal,
                    trace,
                    id,
                    if_absent,
                },
                Some(runner),
            ) => {
                // A refusal that is known already holds this signal back.
                runner.settle();
                runner.on(Input::Send {
                    to,
                    signal,
                    trace,
                    id,
                    if_absent,
                });
            }
            (Command::Heartbeat, Some(_)) => self.heartbeat.beaten(),
            (Command::Quit, Some(_)) => return Err(CloseReason::ByClient),
            (Command::Report { with, report, id }, Some(runner)) => {
                runner.on(Input::Report { with, report, id });
            }
            (Command::Leave { whom, id }, Some(runner)) => runner.on(Input::Leave { whom, id }),
            (Command::Presence { names, watch, id }, Some(runner)) => {
                let remembers = self.http.is_some();
                match Box::pin(runner.presence(names, watch, remembers)).await {
                    Ok(users) => self.tell(Event::Presence { users, id }),
                    Err(refusal) => self.refuse(refusal, id, None),
                }
                return Ok(Took::Long);
            }
            (Command::Renew { token, id }, Some(_)) => self.renew(token, id),
            (Command::Confirm { seq }, Some(runner)) => runner.on(Input::Confirm(seq)),
        }
        Ok(Took::NoTime)
    }
}

/// What a command costs its address, in candidates.
fn cost(command: &Command) -> u32 {
    match command {
        Command::Login { .. } => LOGIN_COST,
        Command::Renew { .. } => OFFER_COST,
        Command::Send { signal, .. } if signal.kind == SignalKind::Offer => OFFER_COST,
        Command::Presence { names, .. } => {
            u32::try_from(1 + names.len() / NAMES_A_COST).unwrap_or(u32::MAX)
        }
        _ => 1,
    }
}

/// The refusal for a client that is too fast, or the end of its connection if it does not slow down.
fn slowed_down(too_fast: TooFast) -> Result<Refusal, CloseReason> {
    let TooFast {
        retry_after,
        persistent,
    } = too_fast;
    if persistent {
        return Err(CloseReason::TooFast);
    }
    Ok(Refusal::RateLimited { retry_after })
}
