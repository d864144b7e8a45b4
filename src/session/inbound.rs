//! Decodes and executes what the client sends.

use futures_util::{FutureExt as _, StreamExt as _};

use super::runner::SessionEvent;
use super::state::Input;
use super::{Received, Session, Socket, http};
use crate::bugs::{self, Bug};
use crate::model::{CloseReason, Command, Correlation, Event, Frame, Refusal};
use crate::protocol::{Codec, DecodeError};

/// How many frames are handled before the replies are written.
const HEARD_AT_ONCE: usize = 32;

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
        if let Err(too_fast) = self.context.rate.check() {
            if too_fast.persistent {
                return Err(CloseReason::TooFast);
            }
            let refusal = Refusal::RateLimited {
                retry_after: too_fast.retry_after,
            };
            // Decode the frame anyway: a client that waits for the answer to its id gets one.
            let (id, name) = match self.codec.decode(frame) {
                Err(DecodeError { id, name, .. }) => (id, name),
                Ok(Command::Send { id, to, .. }) => (id, Some(to)),
                Ok(command) => (command.into_id(), None),
            };
            self.refuse(refusal, id, name);
            return Ok(Took::NoTime);
        }
        match self.codec.decode(frame) {
            Ok(mut command) => {
                http::set_id(&mut command, ours);
                self.act(command).await
            }
            Err(DecodeError { refusal, id, name }) => {
                self.is_deaf = bugs::has(Bug::DeafAfterDirt);
                self.refuse(refusal, id, name);
                Ok(Took::NoTime)
            }
        }
    }

    async fn act(&mut self, command: Command) -> Result<Took, CloseReason> {
        match (command, &mut self.runner) {
            (Command::Ping { id }, _) => self.tell(Event::Pong { id }),
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
            ) => runner.on(Input::Send {
                to,
                signal,
                trace,
                id,
                if_absent,
            }),
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
            (Command::Confirm { seq }, Some(runner)) => runner.on(Input::Confirm(seq)),
        }
        Ok(Took::NoTime)
    }
}
