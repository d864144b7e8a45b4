//! Runs one session from its first frame to its close.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::outbound::farewell;
use super::runner::Runner;
use super::{Session, SessionContext, Socket};
use crate::model::{Blame, CloseReason};
use crate::protocol::Codec;
use crate::telemetry::Repeats;

/// Runs the session until it ends, and cleans up after it.
///
/// Every idle session keeps its future in memory, with space for the arguments and for the largest future it may await.
/// Large parts are therefore boxed, and created only when they are needed.
pub fn run(
    socket: impl Socket,
    codec: impl Codec,
    context: SessionContext,
) -> impl Future<Output = CloseReason> + Send {
    let stop = context.phase.draining();
    hold(Box::new(Session::new(socket, codec, context, &stop)), stop)
}

async fn hold<S: Socket, D: Codec>(
    mut session: Box<Session<S, D>>,
    stop: CancellationToken,
) -> CloseReason {
    let metrics = Arc::clone(&session.context.router.telemetry().metrics);
    let connected = metrics.connected(session.transport(), D::NAME);
    let reason = session.converse().await;
    metrics.ended(reason);
    let repeats = &session.context.router.telemetry().repeats;
    tell_operator(reason, session.runner.as_ref(), repeats);
    drop(connected);
    let Session {
        socket,
        runner,
        context,
        owners,
        ..
    } = *session;
    // Parked sessions are no connections.
    drop(owners);
    let address = context.address;
    let farewell = Box::pin(farewell(socket, reason));
    let departing = Box::pin(async move {
        if let Some(runner) = runner {
            runner.end(reason, &address, &stop).await;
        }
    });
    // Concurrently: call peers and the name do not wait for a client that closes slowly, nor the client for a broker
    // that is away.
    tokio::join!(farewell, departing);
    reason
}

fn tell_operator(reason: CloseReason, runner: Option<&Runner>, repeats: &Repeats) {
    let id = runner.map(|runner| tracing::field::display(runner.session()));
    match (reason, reason.blame()) {
        (
            CloseReason::ByClient
            | CloseReason::Dropped
            | CloseReason::Draining
            | CloseReason::NotAdmitted
            | CloseReason::Replaced,
            _,
        ) => {
            debug!(session.id = id, reason = reason.text(), "A session ended");
        }
        (_, Blame::Client | Blame::Node | Blame::Broker) if repeats.is_first(reason.text()) => {
            info!(
                session.id = id,
                close.code = reason.code(),
                reason = reason.text(),
                "The server ended a session"
            );
        }
        // The others are summed up.
        _ => {}
    }
}
