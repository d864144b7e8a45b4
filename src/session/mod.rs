//! One conversation, from the first frame to goodbye: one task owns the socket, the dialect, the seat and the clocks.

mod heartbeat;
mod kept;
mod login;
mod socket;

pub use heartbeat::Clocks;
pub use kept::{Kept, Standing};
pub use socket::{Gone, Received, Sending, Socket};

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info};

use self::heartbeat::{Heartbeat, Pulse};
use self::kept::Keeper;
use crate::bugs::{self, Bug};
use crate::dialect::{Dialect, Misheard};
use crate::drain::Phase;
use crate::exchange::{Exchange, Manners, Seat, Stirred, Turn};
use crate::ice::Ice;
use crate::limits::Pace;
use crate::model::{
    Blame, CloseReason, Command, Correlation, Event, Frame, LoginRequest, Realm, Refusal, UserName,
};
use crate::telemetry::{Present, Transport};

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
    /// Whether the node drains.
    pub phase: Phase,
    /// How long a resumable session keeps its connection; zero for ever.
    pub max_age: Duration,
    /// Of a transport that outlives this node.
    pub kept: Option<Kept>,
    /// The ICE servers that it tells of.
    pub ice: Arc<Ice>,
    /// How it begins.
    pub opening: Opening,
    /// How sessions of its language are.
    pub manners: Manners,
}

/// How a conversation begins.
#[derive(Clone, Debug)]
pub enum Opening {
    /// With the first frame.
    Frame,
    /// With a login that came with the connection.
    Login(Box<LoginRequest>),
    /// With this answer to it.
    Refused(Refusal),
}

/// Holds the conversation until it ends, and leaves nothing behind.
///
/// A future keeps what it was given beside what it makes of it, and room for the largest of what it may wait for: what is large is in boxes of its
/// own, made when it is needed.
pub fn run(
    socket: impl Socket,
    dialect: impl Dialect,
    call: Call,
) -> impl Future<Output = CloseReason> + Send {
    let stop = call.phase.draining();
    hold(Box::new(Session::new(socket, dialect, call, &stop)), stop)
}

async fn hold<S: Socket, D: Dialect>(
    mut session: Box<Session<S, D>>,
    stop: CancellationToken,
) -> CloseReason {
    let metrics = Arc::clone(&session.call.exchange.telemetry().metrics);
    let connected = metrics.connected(session.transport(), D::NAME);
    let reason = session.converse().await;
    metrics.ended(reason);
    tell_operator(reason, session.seat.as_ref());
    drop(connected);
    let Session { socket, seat, .. } = *session;
    let farewell = Box::pin(farewell(socket, reason));
    let departing = Box::pin(async move {
        if let Some(seat) = seat {
            seat.end(reason, &stop).await;
        }
    });
    // Peers and names do not wait for a client that takes its time to say goodbye, nor the client for a fabric that is away.
    tokio::join!(farewell, departing);
    reason
}

fn tell_operator(reason: CloseReason, seat: Option<&Seat>) {
    let id = seat.map(|seat| tracing::field::display(seat.session()));
    match (reason, reason.blame()) {
        (
            CloseReason::ByClient
            | CloseReason::Dropped
            | CloseReason::Draining
            | CloseReason::NotAdmitted
            | CloseReason::Replaced,
            _,
        ) => {
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
}

struct Session<S, D> {
    socket: S,
    dialect: D,
    call: Call,
    heartbeat: Heartbeat,
    /// Kept from turn to turn: to register anew with the token that all sessions share would cost more than a turn.
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    seat: Option<Seat>,
    /// Of a conversation that outlives this node.
    keeper: Option<Box<Keeper>>,
    /// Counted as logged in.
    present: Option<Present>,
    /// Counts what was sent to see whether the client is there.
    pings: u64,
    /// How often the client has tried a secret that was not its own.
    wrong_secrets: u32,
    /// By a bug that is there on purpose.
    is_deaf: bool,
    /// When the connection is to end, as its client was or will be told.
    goes_at: Option<Instant>,
    is_told_to_go: bool,
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
    Goes,
    Clock,
    Received(Option<Received>),
    Stirred(Stirred),
}

impl<S: Socket, D: Dialect> Session<S, D> {
    fn new(socket: S, dialect: D, mut call: Call, stop: &CancellationToken) -> Self {
        let keeper = call.kept.take().map(Keeper::new).map(Box::new);
        Self {
            socket,
            dialect,
            heartbeat: Heartbeat::start(call.clocks),
            call,
            drain: Box::pin(stop.clone().cancelled_owned()),
            seat: None,
            keeper,
            present: None,
            pings: 0,
            wrong_secrets: 0,
            is_deaf: false,
            goes_at: None,
            is_told_to_go: false,
            turns: Vec::new(),
        }
    }

    fn transport(&self) -> Transport {
        match self.keeper {
            None => Transport::WebSocket,
            Some(_) => Transport::Http,
        }
    }

    async fn converse(&mut self) -> CloseReason {
        if !matches!(self.call.opening, Opening::Frame) {
            let opening = std::mem::replace(&mut self.call.opening, Opening::Frame);
            if let Err(reason) = Box::pin(self.open(opening)).await {
                return reason;
            }
        }
        if self.keeper.is_some()
            && let Err(reason) = Box::pin(self.go_on()).await
        {
            return reason;
        }
        loop {
            let busy = self.seat.as_ref().is_some_and(Seat::busy);
            // Arms only wait, bodies act. Not biased: neither a loud client nor a loud peer may keep the other waiting.
            let wake = tokio::select! {
                () = self.drain.as_mut(), if !self.is_told_to_go => Wake::Drain,
                () = due(self.goes_at) => Wake::Goes,
                () = self.heartbeat.due() => Wake::Clock,
                received = self.socket.next(), if !busy => Wake::Received(received),
                stirred = stirred(&mut self.seat) => Wake::Stirred(stirred),
            };
            let acted = match wake {
                Wake::Drain => {
                    self.go(self.call.phase.goes_in());
                    Ok(())
                }
                // A connection that is too old goes as those of a draining node do.
                Wake::Goes if !self.is_told_to_go => {
                    self.go(Duration::ZERO);
                    Ok(())
                }
                Wake::Goes => Err(CloseReason::Draining),
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
                Some(Received::Closed { for_good }) => return Err(self.closed(for_good)),
                Some(Received::TooLarge) => return Err(CloseReason::TooLarge),
                Some(Received::Taken) => return Err(CloseReason::Replaced),
                Some(Received::Expired) => return Err(CloseReason::Expired),
                Some(Received::Alive) => self.alive(),
                Some(Received::Answered(ping)) => {
                    self.alive();
                    if let Some(seat) = &mut self.seat {
                        seat.ponged(ping);
                    }
                }
                Some(Received::Kept(frame, place)) => {
                    self.alive();
                    self.receive_kept(&frame, place).await?;
                    break;
                }
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

    /// Tells the client to go, and when.
    fn go(&mut self, reconnect_in: Duration) {
        self.is_told_to_go = true;
        if let Some(seat) = &self.seat {
            seat.mark("goaway");
        }
        self.goes_at = Some(Instant::now() + reconnect_in);
        if self.keeper.is_some() {
            // Its client has nothing to do: another node goes on.
            return;
        }
        self.tell(Event::GoAway { reconnect_in });
    }

    /// A client that was told to go, or that closes as clients do that reconnect, may come back to its session.
    fn closed(&self, for_good: bool) -> CloseReason {
        let may_resume = self.seat.as_ref().is_some_and(Seat::is_resumable);
        let is_told = self.is_told_to_go && self.keeper.is_none();
        if may_resume && (is_told || !for_good) {
            CloseReason::Dropped
        } else {
            CloseReason::ByClient
        }
    }

    fn alive(&mut self) {
        self.heartbeat.heard();
        if let Some(seat) = &mut self.seat {
            seat.alive();
        }
    }

    async fn hear(&mut self, frame: &Frame) -> Result<Took, CloseReason> {
        if self.is_deaf {
            return Ok(Took::NoTime);
        }
        if let Err(too_fast) = self.call.pace.step() {
            if too_fast.again_and_again {
                return Err(CloseReason::TooFast);
            }
            let refusal = Refusal::RateLimited {
                retry_after: too_fast.retry_after,
            };
            // The id is worth reading: who waits for its answer gets one.
            let (id, name) = match self.dialect.hear(frame) {
                Err(Misheard { id, name, .. }) => (id, name),
                Ok(Command::Send { id, to, .. }) => (id, Some(to)),
                Ok(command) => (command.into_id(), None),
            };
            self.refuse(refusal, id, name);
            return Ok(Took::NoTime);
        }
        match self.dialect.hear(frame) {
            Ok(mut command) => {
                if let Some(keeper) = &self.keeper {
                    keeper.marks(&mut command);
                }
                self.act(command).await
            }
            Err(Misheard { refusal, id, name }) => {
                self.is_deaf = bugs::has(Bug::DeafAfterDirt);
                self.refuse(refusal, id, name);
                Ok(Took::NoTime)
            }
        }
    }

    async fn act(&mut self, command: Command) -> Result<Took, CloseReason> {
        match (command, &mut self.seat) {
            (Command::Ping { id }, _) => self.tell(Event::Pong { id }),
            (Command::Login { request, id }, None) => {
                Box::pin(self.login(request, id)).await?;
                return Ok(Took::Long);
            }
            (Command::Login { id, .. }, Some(_)) => {
                self.tell(Event::LoginRefused {
                    refusal: Refusal::AlreadyLoggedIn,
                    id,
                });
            }
            (command, None) => self.refuse(Refusal::NotLoggedIn, command.into_id(), None),
            (
                Command::Send {
                    to,
                    signal,
                    trace,
                    id,
                    if_absent,
                },
                Some(seat),
            ) => seat.send(to, signal, trace, id, if_absent),
            (Command::Heartbeat, Some(_)) => self.heartbeat.beaten(),
            (Command::Quit, Some(_)) => return Err(CloseReason::ByClient),
            (Command::Report { with, report, id }, Some(seat)) => seat.report(&with, report, id),
            (Command::Leave { whom, id }, Some(seat)) => seat.leave(whom, id),
            (Command::Presence { names, watch, id }, Some(seat)) => {
                let told = match Box::pin(seat.presence(names, watch)).await {
                    Ok(users) => {
                        if let Some(keeper) = &mut self.keeper {
                            let names = users.iter().map(|(name, _)| name.clone());
                            keeper.watches(&names.collect::<Vec<_>>(), watch);
                        }
                        Event::Presence { users, id }
                    }
                    Err(refusal) => {
                        self.refuse(refusal, id, None);
                        return Ok(Took::Long);
                    }
                };
                self.tell(told);
                return Ok(Took::Long);
            }
            (Command::Confirm { seq }, Some(seat)) => seat.confirm(seq),
        }
        Ok(Took::NoTime)
    }

    fn stir(&mut self, stirred: Stirred) {
        if let Some(seat) = &mut self.seat {
            seat.stir(stirred, &mut self.turns);
        }
    }

    async fn beat(&mut self) -> Result<(), CloseReason> {
        match self.heartbeat.beat() {
            Pulse::Steady => Ok(()),
            Pulse::Ping => {
                let ping = self.ping();
                self.write(vec![ping]).await
            }
            Pulse::Renew => {
                if let Some(seat) = &self.seat {
                    let servers = self.call.ice.servers_for(seat.address());
                    self.tell(Event::IceServers(servers));
                }
                self.heartbeat.renews_in(self.call.ice.renewed_after());
                Ok(())
            }
            Pulse::Stopped(CloseReason::Silent) => match self.socket.next().now_or_never() {
                // It was this node that did not listen.
                Some(received) => self.receive(received).await,
                None => Err(CloseReason::Silent),
            },
            Pulse::Stopped(reason) => Err(reason),
        }
    }

    /// A ping that leaves now, behind everything that was said.
    fn ping(&mut self) -> Sending {
        self.pings += 1;
        if let Some(seat) = &mut self.seat {
            seat.pinged(self.pings);
        }
        Sending::Ping(self.pings)
    }

    fn tell(&mut self, event: Event) {
        self.turns.push(Turn::Tell(event));
    }

    fn refuse(&mut self, refusal: Refusal, id: Option<Correlation>, name: Option<UserName>) {
        self.call.exchange.telemetry().metrics.refused(&refusal);
        self.tell(Event::Refused { refusal, id, name });
    }

    /// Says everything that is to be said, in one write.
    async fn say(&mut self) -> Result<(), CloseReason> {
        let is_settled = |keeper: &Keeper| keeper.is_settled(self.seat.as_ref());
        if self.turns.is_empty() && !self.keeper.as_deref().is_some_and(is_settled) {
            return Ok(());
        }
        let mut sending = Vec::with_capacity(self.turns.len());
        // They end when everything is written.
        let mut spans = Vec::new();
        let mut end = Ok(());
        let mut asks = self.seat.as_ref().is_some_and(Seat::asks);
        for turn in self.turns.drain(..) {
            match turn {
                Turn::Tell(event) => {
                    let event = match &mut self.keeper {
                        None => Some(event),
                        Some(keeper) => keeper.says(event),
                    };
                    let said = event.and_then(|event| self.dialect.say(&event));
                    sending.extend(said.map(Sending::Frame));
                }
                Turn::Doubted => {
                    self.heartbeat.doubted();
                    asks = true;
                }
                Turn::Traced(span) => spans.push(span),
                Turn::Ask => asks = true,
                Turn::End(reason) => end = Err(reason),
            }
        }
        if let Some(keeper) = &mut self.keeper {
            let standing = keeper.standing(self.seat.as_ref()).map(Box::new);
            sending.extend(standing.map(Sending::Standing));
        }
        if asks {
            sending.push(self.ping());
        }
        let written = self.write(sending).await;
        if let Some(seat) = &mut self.seat {
            seat.written();
        }
        drop(spans);
        written.and(end)
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
            () = sleep(self.call.write_timeout), if !bugs::has(Bug::BottomlessMailbox) => Err(CloseReason::TooSlow),
        }
    }
}

/// Says why, and waits for the client to take note: closing at once could reset the connection before it has read the reason.
async fn farewell(mut socket: impl Socket, reason: CloseReason) {
    let goodbye = async {
        if matches!(reason, CloseReason::ByClient | CloseReason::Dropped) {
            // Answers the close of a client that closed cleanly.
            return socket.close().await;
        }
        socket.feed(Sending::Close(reason)).await?;
        socket.flush().await?;
        while !matches!(socket.next().await, None | Some(Received::Closed { .. })) {}
        Ok(())
    };
    // Whoever does not answer is left.
    let _ = timeout(FAREWELL, goodbye).await;
}

/// Waits until then, or for ever.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
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
