//! One conversation, from the first frame to goodbye: one task owns the socket, the codec, the state and the clocks.

mod context;
mod departure;
mod heartbeat;
mod http;
mod inbound;
mod login;
mod outbound;
mod pending;
mod presence;
mod run;
mod runner;
mod socket;
pub mod state;

pub use context::{InitialLogin, SessionContext};
pub use heartbeat::Clocks;
pub use http::{HttpSession, Progress, ResumePoint};
pub use run::run;
pub use socket::{Gone, Received, Sending, Socket};

use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::heartbeat::{Heartbeat, Pulse};
use self::http::HttpState;
use self::runner::{Runner, SessionEvent, due};
use self::state::{Action, Input};
use crate::broker::Verdict;
use crate::model::{CloseReason, Correlation, Event, Refusal, UserName};
use crate::protocol::Codec;
use crate::telemetry::{GaugeGuard, Transport};

struct Session<S, D> {
    socket: S,
    codec: D,
    context: SessionContext,
    heartbeat: Heartbeat,
    /// Kept from turn to turn: to register anew with the token that all sessions share would cost more than a turn.
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    runner: Option<Runner>,
    /// Of a conversation over HTTP.
    http: Option<Box<HttpState>>,
    /// Counted as logged in.
    gauge: Option<GaugeGuard>,
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
    actions: Vec<Action>,
}

/// Everything that can happen to a session.
enum Wake {
    Drain,
    Goes,
    Clock,
    Received(Option<Received>),
    Event(SessionEvent),
}

impl<S: Socket, D: Codec> Session<S, D> {
    fn new(socket: S, codec: D, mut context: SessionContext, stop: &CancellationToken) -> Self {
        let http = context.http.take();
        let http = http.map(|http_session| Box::new(HttpState::new(*http_session)));
        Self {
            socket,
            codec,
            heartbeat: Heartbeat::start(context.clocks),
            context,
            drain: Box::pin(stop.clone().cancelled_owned()),
            runner: None,
            http,
            gauge: None,
            pings: 0,
            wrong_secrets: 0,
            is_deaf: false,
            goes_at: None,
            is_told_to_go: false,
            actions: Vec::new(),
        }
    }

    fn transport(&self) -> Transport {
        match self.http {
            None => Transport::WebSocket,
            Some(_) => Transport::Http,
        }
    }

    async fn converse(&mut self) -> CloseReason {
        if !matches!(self.context.initial_login, InitialLogin::ByMessage) {
            let initial_login =
                std::mem::replace(&mut self.context.initial_login, InitialLogin::ByMessage);
            if let Err(reason) = Box::pin(self.open(initial_login)).await {
                return reason;
            }
        }
        if self.http.is_some()
            && let Err(reason) = Box::pin(self.resume_elsewhere()).await
        {
            return reason;
        }
        loop {
            let busy = self.is_busy();
            // Arms only wait, bodies act. Not biased: neither a loud client nor a loud peer may keep the other waiting.
            let wake = tokio::select! {
                () = self.drain.as_mut(), if !self.is_told_to_go => Wake::Drain,
                () = due(self.goes_at) => Wake::Goes,
                () = self.heartbeat.due() => Wake::Clock,
                received = self.socket.next(), if !busy => Wake::Received(received),
                event = next_event(&mut self.runner) => Wake::Event(event),
            };
            let acted = match wake {
                Wake::Drain => {
                    self.go(self.context.phase.departure_delay());
                    Ok(())
                }
                // A connection that is too old goes as those of a draining node do.
                Wake::Goes if !self.is_told_to_go => {
                    self.go(Duration::ZERO);
                    Ok(())
                }
                Wake::Goes => Err(CloseReason::Draining),
                // In a box, since it is rare and large: every idle session would keep room for it.
                Wake::Clock => Box::pin(self.beat()).await,
                Wake::Received(received) => self.receive(received).await,
                Wake::Event(event) => {
                    self.handle(event);
                    Ok(())
                }
            };
            let said = self.write_actions().await;
            if let Err(reason) = acted.and(said) {
                return reason;
            }
        }
    }

    /// Tells the client to go, and when.
    fn go(&mut self, reconnect_in: Duration) {
        self.is_told_to_go = true;
        if let Some(runner) = &self.runner {
            runner.state.mark("goaway");
        }
        self.goes_at = Some(Instant::now() + reconnect_in);
        if self.http.is_some() {
            // Its client has nothing to do: another node goes on.
            return;
        }
        self.tell(Event::GoAway { reconnect_in });
    }

    /// A client that was told to go, or that closes as clients do that reconnect, may come back to its session.
    fn closed(&self, for_good: bool) -> CloseReason {
        let may_resume = self
            .runner
            .as_ref()
            .is_some_and(|runner| runner.state.is_resumable());
        let is_told = self.is_told_to_go && self.http.is_none();
        if may_resume && (is_told || !for_good) {
            CloseReason::Dropped
        } else {
            CloseReason::ByClient
        }
    }

    fn alive(&mut self) {
        self.heartbeat.heard();
        self.on(Input::Answer(Verdict::Alive));
    }

    /// Whether the client is not to be heard now.
    fn is_busy(&self) -> bool {
        self.runner
            .as_ref()
            .is_some_and(|runner| runner.state.is_busy())
    }

    fn on(&mut self, input: Input) {
        if let Some(runner) = &mut self.runner {
            runner.on(input);
        }
    }

    fn handle(&mut self, event: SessionEvent) {
        if let Some(runner) = &mut self.runner {
            runner.handle(event);
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
                if let Some(runner) = &self.runner {
                    let servers = self.context.ice.servers_for(runner.address());
                    self.tell(Event::IceServers(servers));
                }
                self.heartbeat.renews_in(self.context.ice.renewed_after());
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
        self.on(Input::Pinged(self.pings));
        Sending::Ping(self.pings)
    }

    /// Tells the client something, behind what the session's state has told it so far.
    fn tell(&mut self, event: Event) {
        self.take_actions();
        self.actions.push(Action::Tell(event));
    }

    fn take_actions(&mut self) {
        if let Some(runner) = self
            .runner
            .as_mut()
            .filter(|runner| runner.state.has_actions())
        {
            self.actions.append(&mut runner.take_actions());
        }
    }

    fn refuse(&mut self, refusal: Refusal, id: Option<Correlation>, name: Option<UserName>) {
        self.context.router.telemetry().metrics.refused(&refusal);
        self.tell(Event::Refused { refusal, id, name });
    }
}

async fn next_event(runner: &mut Option<Runner>) -> SessionEvent {
    match runner {
        Some(runner) => runner.next().await,
        None => std::future::pending().await,
    }
}
