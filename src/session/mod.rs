//! One conversation, from the first frame to goodbye: one task owns the socket, the dialect, the seat and the clocks.

mod heartbeat;
mod socket;

pub use heartbeat::Clocks;
pub use socket::{Gone, Received, Sending, Socket};

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info};

use self::heartbeat::{Heartbeat, Pulse};
use crate::dialect::{Dialect, Misheard};
use crate::exchange::{Exchange, Seat, Stirred, Turn};
use crate::limits::Pace;
use crate::model::{
    Address, Blame, CloseReason, Command, Correlation, Event, Frame, LoginRequest, Realm, Refusal,
    UserName, Welcome,
};

/// How many frames are heard before what they caused is said.
const HEARD_AT_ONCE: usize = 32;
/// How long a goodbye may take, and how long the client may take to answer it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a conversation needs to know; prepared at the door.
#[derive(Debug)]
pub struct Call {
    /// Where it logs in.
    pub exchange: Arc<Exchange>,
    /// The tenant.
    pub realm: Realm,
    /// How patient it is.
    pub clocks: Clocks,
    /// How long one write may take before the reader counts as too slow.
    pub write_timeout: Duration,
    /// How fast the client may speak.
    pub pace: Pace,
    /// Cancelled when the node drains.
    pub stop: CancellationToken,
}

/// Holds the conversation until it ends, and leaves nothing behind.
pub async fn run(socket: impl Socket, dialect: impl Dialect, call: Call) -> CloseReason {
    let heartbeat = Heartbeat::start(call.clocks);
    let drain = Box::pin(call.stop.clone().cancelled_owned());
    let mut session = Session {
        socket,
        dialect,
        call,
        heartbeat,
        drain,
        seat: None,
        turns: Vec::new(),
    };
    let reason = session.converse().await;
    let Session {
        socket,
        dialect,
        seat,
        ..
    } = session;
    let id = seat
        .as_ref()
        .map(|seat| tracing::field::display(seat.session()));
    match (reason, reason.blame()) {
        (CloseReason::ByClient | CloseReason::Dropped | CloseReason::Draining, _) => {
            debug!(session.id = id, reason = reason.words(), "A session ended");
        }
        (_, Blame::Client | Blame::Node | Blame::Fabric) => {
            info!(
                session.id = id,
                close.code = reason.code(),
                reason = reason.words(),
                "A session was ended"
            );
        }
    }
    let departing = async {
        if let Some(seat) = seat {
            seat.depart(reason.leave_reason()).await;
        }
    };
    // Peers and names do not wait for a client that takes its time to say goodbye, nor the client for a fabric that is away.
    let farewell = Box::pin(farewell(socket, dialect, reason));
    tokio::join!(farewell, Box::pin(departing));
    reason
}

struct Session<S, D> {
    socket: S,
    dialect: D,
    call: Call,
    heartbeat: Heartbeat,
    /// Kept from turn to turn: to register anew with the token that all sessions share would cost more than a turn.
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    seat: Option<Seat>,
    /// What is to be said; emptied by every wake.
    turns: Vec<Turn>,
}

/// Whether a command waited for the fabric: then everything else gets its turn before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    NoTime,
    Long,
}

/// Everything that can happen to a session.
enum Wake {
    Drain,
    Clock,
    Received(Option<Received>),
    Stirred(Stirred),
}

impl<S: Socket, D: Dialect> Session<S, D> {
    async fn converse(&mut self) -> CloseReason {
        loop {
            let busy = self.seat.as_ref().is_some_and(Seat::busy);
            // Arms only wait, bodies act. Not biased: neither a loud client nor a loud peer may keep the other waiting.
            let wake = tokio::select! {
                () = self.drain.as_mut() => Wake::Drain,
                () = self.heartbeat.due() => Wake::Clock,
                received = self.socket.next(), if !busy => Wake::Received(received),
                stirred = stirred(&mut self.seat) => Wake::Stirred(stirred),
            };
            let acted = match wake {
                Wake::Drain => Err(CloseReason::Draining),
                Wake::Clock => self.beat().await,
                Wake::Received(received) => self.receive(received).await,
                Wake::Stirred(stirred) => {
                    self.stir(stirred);
                    Ok(())
                }
            };
            let said = self.say().await;
            if let Err(reason) = acted.and(said) {
                return reason;
            }
        }
    }

    /// Hears one frame, and whatever else has arrived with it.
    async fn receive(&mut self, first: Option<Received>) -> Result<(), CloseReason> {
        let mut received = first;
        for heard in 1.. {
            match received {
                None => return Err(CloseReason::Dropped),
                Some(Received::Closed) => return Err(CloseReason::ByClient),
                Some(Received::TooLarge) => return Err(CloseReason::TooLarge),
                Some(Received::Alive) => self.alive(),
                Some(Received::Frame(frame)) => {
                    self.alive();
                    if self.hear(&frame).await? == Took::Long {
                        break;
                    }
                }
            }
            if heard == HEARD_AT_ONCE || self.seat.as_ref().is_some_and(Seat::busy) {
                break;
            }
            let Some(next) = self.socket.next().now_or_never() else {
                break;
            };
            received = next;
        }
        // Takes the outcomes that nobody was woken for.
        self.stir(Stirred::Outcome);
        Ok(())
    }

    fn alive(&mut self) {
        self.heartbeat.heard();
        if let Some(seat) = &mut self.seat {
            seat.alive();
        }
    }

    async fn hear(&mut self, frame: &Frame) -> Result<Took, CloseReason> {
        if let Err(too_fast) = self.call.pace.step() {
            if too_fast.again_and_again {
                return Err(CloseReason::TooFast);
            }
            let refusal = Refusal::RateLimited {
                retry_after: too_fast.retry_after,
            };
            // The id is worth reading: who waits for its answer gets one.
            let id = self
                .dialect
                .hear(frame)
                .map_or_else(|misheard| misheard.id, Command::into_id);
            self.refuse(refusal, id, None);
            return Ok(Took::NoTime);
        }
        match self.dialect.hear(frame) {
            Ok(command) => Ok(self.act(command).await),
            Err(Misheard { refusal, id, name }) => {
                self.refuse(refusal, id, name);
                Ok(Took::NoTime)
            }
        }
    }

    async fn act(&mut self, command: Command) -> Took {
        match (command, &mut self.seat) {
            (Command::Ping { id }, _) => self.tell(Event::Pong { id }),
            (Command::Login { request, id }, None) => {
                Box::pin(self.login(request, id)).await;
                return Took::Long;
            }
            (Command::Login { id, .. }, Some(_)) => {
                self.tell(Event::LoginRefused {
                    refusal: Refusal::AlreadyLoggedIn,
                    id,
                });
            }
            (command, None) => self.refuse(Refusal::NotLoggedIn, command.into_id(), None),
            (Command::Send { to, signal, id }, Some(seat)) => seat.send(to, signal, id),
            (Command::Leave { whom, id }, Some(seat)) => seat.leave(whom, id),
            (Command::Presence { names, watch, id }, Some(seat)) => {
                let told = match Box::pin(seat.presence(names, watch)).await {
                    Ok(users) => Event::Presence { users, id },
                    Err(refusal) => Event::Refused {
                        refusal,
                        id,
                        name: None,
                    },
                };
                self.tell(told);
                return Took::Long;
            }
            // A plain session has nothing to confirm.
            (Command::Confirm, Some(_)) => {}
        }
        Took::NoTime
    }

    async fn login(&mut self, request: LoginRequest, id: Option<Correlation>) {
        let told = match self.try_login(request).await {
            Ok(seat) => {
                let welcome = Welcome {
                    name: seat.name().clone(),
                    session: seat.session(),
                    node: seat.node().clone(),
                    grace: seat.grace(),
                    id,
                };
                debug!(session.id = %seat.session(), "A user logged in");
                self.seat = Some(seat);
                self.heartbeat.logged_in();
                Event::Welcome(Box::new(welcome))
            }
            Err(refusal) => Event::LoginRefused { refusal, id },
        };
        self.tell(told);
    }

    async fn try_login(&mut self, request: LoginRequest) -> Result<Seat, Refusal> {
        if self.call.stop.is_cancelled() {
            return Err(Refusal::Draining);
        }
        if request.token.is_some() {
            return Err(Refusal::Unauthorized(
                "This server does not check tokens: log in without one",
            ));
        }
        if request.resume.is_some() {
            return Err(Refusal::ResumeFailed);
        }
        let name = UserName::parse(&request.name).map_err(|_| Refusal::InvalidName)?;
        self.call
            .exchange
            .login(Address::new(self.call.realm.clone(), name))
            .await
    }

    fn stir(&mut self, stirred: Stirred) {
        if let Some(seat) = &mut self.seat {
            seat.stir(stirred, &mut self.turns);
        }
    }

    async fn beat(&mut self) -> Result<(), CloseReason> {
        match self.heartbeat.beat() {
            Pulse::Steady => Ok(()),
            Pulse::Ping => self.write(vec![Sending::Ping]).await,
            Pulse::Stopped(CloseReason::Silent) => match self.socket.next().now_or_never() {
                // It was this node that did not listen.
                Some(received) => self.receive(received).await,
                None => Err(CloseReason::Silent),
            },
            Pulse::Stopped(reason) => Err(reason),
        }
    }

    fn tell(&mut self, event: Event) {
        self.turns.push(Turn::Tell(event));
    }

    fn refuse(&mut self, refusal: Refusal, id: Option<Correlation>, name: Option<UserName>) {
        self.tell(Event::Refused { refusal, id, name });
    }

    /// Says everything that is to be said, in one write.
    async fn say(&mut self) -> Result<(), CloseReason> {
        if self.turns.is_empty() {
            return Ok(());
        }
        let mut sending = Vec::with_capacity(self.turns.len());
        let mut end = Ok(());
        for turn in self.turns.drain(..) {
            match turn {
                Turn::Tell(event) => sending.extend(self.dialect.say(&event).map(Sending::Frame)),
                Turn::Doubted => {
                    self.heartbeat.doubted();
                    sending.push(Sending::Ping);
                }
                Turn::End(reason) => end = Err(reason),
            }
        }
        self.write(sending).await.and(end)
    }

    /// Writes within the limit; a mailbox that overflows meanwhile ends it early.
    async fn write(&mut self, sending: Vec<Sending>) -> Result<(), CloseReason> {
        if sending.is_empty() {
            return Ok(());
        }
        let socket = &mut self.socket;
        let writing = async {
            for message in sending {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        let mut writing = pin!(writing);
        // Nearly always there is room, and no clock is needed.
        if let Poll::Ready(written) = futures_util::poll!(&mut writing) {
            return written.map_err(|Gone| CloseReason::Dropped);
        }
        tokio::select! {
            biased;
            written = writing => written.map_err(|Gone| CloseReason::Dropped),
            () = overflowed(&mut self.seat) => Err(CloseReason::TooSlow),
            () = sleep(self.call.write_timeout) => Err(CloseReason::TooSlow),
        }
    }
}

/// Says why, and waits for the client to take note: closing at once could reset the connection before it has read the reason.
async fn farewell(mut socket: impl Socket, mut dialect: impl Dialect, reason: CloseReason) {
    let goodbye = async {
        if reason.code().is_none() {
            // Answers the close of a client that closed cleanly.
            return socket.close().await;
        }
        if reason == CloseReason::Draining {
            let goaway = Event::GoAway {
                reconnect_in: Duration::ZERO,
            };
            if let Some(frame) = dialect.say(&goaway) {
                socket.feed(Sending::Frame(frame)).await?;
            }
        }
        socket.feed(Sending::Close(reason)).await?;
        socket.flush().await?;
        while !matches!(socket.next().await, None | Some(Received::Closed)) {}
        Ok(())
    };
    // Whoever does not answer is left.
    let _ = timeout(FAREWELL, goodbye).await;
}

async fn stirred(seat: &mut Option<Seat>) -> Stirred {
    match seat {
        Some(seat) => seat.stirred().await,
        None => std::future::pending().await,
    }
}

async fn overflowed(seat: &mut Option<Seat>) {
    match seat {
        Some(seat) => seat.overflowed().await,
        None => std::future::pending().await,
    }
}
