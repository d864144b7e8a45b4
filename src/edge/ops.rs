//! The operator's door: is the process alive, should it get users, how is it doing.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::drain::Phase;
use crate::exchange::Exchange;

/// What an operator may see of a node.
#[derive(Clone, Debug)]
pub struct NodeView {
    exchange: Arc<Exchange>,
    phase: Phase,
    fabric: &'static str,
    started: Instant,
}

impl NodeView {
    /// A view of a node that starts now, on a fabric of this kind.
    pub fn new(exchange: Arc<Exchange>, phase: Phase, fabric: &'static str) -> Self {
        Self {
            exchange,
            phase,
            fabric,
            started: Instant::now(),
        }
    }
}

#[derive(Serialize)]
struct Status {
    node: String,
    version: &'static str,
    uptime_seconds: u64,
    draining: bool,
    ready: bool,
    sessions: usize,
    /// Sides of calls: a call has two, on one node or on two.
    calls: u64,
    /// Other nodes that call peers or receivers were lately found on.
    nodes_seen: Vec<String>,
    fabric: FabricStatus,
}

#[derive(Serialize)]
struct FabricStatus {
    kind: &'static str,
    reached: bool,
    /// Signals and questions that wait to leave.
    queue: u64,
}

/// What the admin listener serves.
pub fn admin_routes(view: NodeView) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(view)
}

async fn readyz(State(view): State<NodeView>) -> Response {
    if view.phase.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else if view.exchange.health().ready {
        "ready\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the fabric is away: check that Redis runs, and redis.url\n",
        )
            .into_response()
    }
}

async fn metrics(State(view): State<NodeView>) -> Response {
    let (kind, text) = view.exchange.telemetry().metrics.exposition();
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(view): State<NodeView>) -> Json<Status> {
    let (health, draining) = (view.exchange.health(), view.phase.is_draining());
    let seen = view.exchange.nodes_seen();
    Json(Status {
        node: view.exchange.node().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: view.started.elapsed().as_secs(),
        draining,
        ready: health.ready && !draining,
        sessions: health.sessions,
        calls: health.calls,
        nodes_seen: seen.iter().map(ToString::to_string).collect(),
        fabric: FabricStatus {
            kind: view.fabric,
            reached: health.fabric_reached,
            queue: health.fabric_queue,
        },
    })
}
