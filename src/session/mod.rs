//! Sessions: one task owns a client's socket, codec, state and clocks, from the first frame to the close.

mod context;
mod departure;
mod facts;
mod heartbeat;
mod http;
mod inbound;
mod login;
mod outbound;
mod pending;
mod presence;
mod progress;
mod run;
mod runner;
mod socket;
pub mod state;
mod token;

pub use context::{InitialLogin, SessionContext};
pub use heartbeat::Clocks;
pub use progress::{FirstRefused, HttpSession, Progress, ResumePoint};
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
use self::token::{Renewal, Renewed, renewed};
use crate::auth::OwnersPermit;
use crate::broker::Verdict;
use crate::model::{CloseReason, Correlation, Event, Refusal, UserName};
use crate::protocol::Codec;
use crate::telemetry::{GaugeGuard, Transport};

struct Session<S, D> {
    socket: S,
    codec: D,
    context: SessionContext,
    heartbeat: Heartbeat,
    /// Kept across wake-ups: registering with the token that all sessions share costs more than a wake-up.
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    runner: Option<Runner>,
    /// Set for a session over HTTP.
    http: Option<Box<HttpState>>,
    /// Counts the session as logged in while it exists.
    gauge: Option<GaugeGuard>,
    /// The number of the last ping.
    pings: u64,
    /// How many wrong secrets the client has sent.
    wrong_secrets: u32,
    /// Counts the connections of the token's owner, if the token limits them.
    owners: Option<OwnersPermit>,
    /// A new token that is being verified.
    renewal: Option<Renewal>,
    /// Set by a seeded bug only.
    is_deaf: bool,
    /// When the connection ends, if it must.
    goes_at: Option<Instant>,
    is_told_to_go: bool,
    /// Actions to write; each wake-up empties it.
    actions: Vec<Action>,
}

/// Everything that can happen to a session.
enum Wake {
    Drain,
    Goes,
    Clock,
    Received(Option<Received>),
    Event(SessionEvent),
    Renewed(Renewed),
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
            owners: None,
            renewal: None,
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
            // Arms only wait, bodies act. Not biased: neither a busy client nor a busy peer may starve the other.
            let wake = tokio::select! {
                () = self.drain.as_mut(), if !self.is_told_to_go => Wake::Drain,
                () = due(self.goes_at) => Wake::Goes,
                () = self.heartbeat.due() => Wake::Clock,
                received = self.socket.next(), if !busy => Wake::Received(received),
                event = next_event(&mut self.runner) => Wake::Event(event),
                renewed = renewed(&mut self.renewal) => Wake::Renewed(renewed),
            };
            let acted = match wake {
                Wake::Drain => {
                    self.go(self.context.phase.departure_delay());
                    Ok(())
                }
                // A connection that is too old ends like those of a draining node.
                Wake::Goes if !self.is_told_to_go => {
                    self.go(Duration::ZERO);
                    Ok(())
                }
                Wake::Goes => Err(CloseReason::Draining),
                // Boxed because it is large and rare: every idle session would keep space for it.
                Wake::Clock => Box::pin(self.beat()).await,
                Wake::Received(received) => self.receive(received).await,
                Wake::Event(event) => {
                    self.handle(event);
                    Ok(())
                }
                Wake::Renewed(renewed) => self.take_token(renewed),
            };
            let said = self.write_actions().await;
            if let Err(reason) = acted.and(said) {
                return reason;
            }
        }
    }

    /// Announces that the connection ends, and when.
    fn go(&mut self, reconnect_in: Duration) {
        self.is_told_to_go = true;
        if let Some(runner) = &self.runner {
            runner.state.mark("goaway");
        }
        self.goes_at = Some(Instant::now() + reconnect_in);
        if self.http.is_some() {
            // The client of an HTTP session need not act: another node continues the session.
            return;
        }
        self.tell(Event::GoAway { reconnect_in });
    }

    /// The reason when the client closes. A client that was told to go, or whose close code does not end the session,
    /// may resume it.
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
        if let Some(runner) = &mut self.runner
            && runner.state.is_challenged()
        {
            runner.on(Input::Answer(Verdict::Alive));
        }
    }

    /// Whether the session accepts no frames for now.
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
                    let may_relay = runner.state.may_relay();
                    let ice = &self.context.ice;
                    let servers = ice.servers_for(runner.address(), may_relay);
                    self.tell(Event::IceServers(servers));
                }
                self.heartbeat.renews_in(self.context.ice.renewed_after());
                Ok(())
            }
            Pulse::TokenExpires(within) => {
                self.tell(Event::TokenExpires { within });
                Ok(())
            }
            Pulse::Stopped(CloseReason::Silent) => match self.socket.next().now_or_never() {
                // The client was not silent: this node was too slow to read.
                Some(received) => self.receive(received).await,
                None => Err(CloseReason::Silent),
            },
            Pulse::Stopped(reason) => Err(reason),
        }
    }

    /// A ping to send behind everything that was written.
    fn ping(&mut self) -> Sending {
        self.pings += 1;
        self.on(Input::Pinged(self.pings));
        Sending::Ping(self.pings)
    }

    /// Queues an event for the client, behind the events of the session's state.
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
