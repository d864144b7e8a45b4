//! Routes for operators on the admin listener: `/livez`, `/readyz`, `/status`, `/metrics`, and the admin API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use super::admin;
use super::headers;
use super::node_view::NodeView;
use crate::model::Secret;

#[derive(Serialize)]
struct Status {
    node: String,
    version: &'static str,
    uptime_seconds: u64,
    draining: bool,
    ready: bool,
    sessions: usize,
    /// Sides of calls on this node. A call has two sides, on one node or on two.
    calls: u64,
    /// Other nodes on which call peers or receivers were found lately.
    nodes_seen: Vec<String>,
    #[serde(rename = "fabric")]
    broker: BrokerStatus,
}

#[derive(Serialize)]
struct BrokerStatus {
    kind: &'static str,
    reached: bool,
    /// Why Redis cannot be used, and what mends it.
    trouble: Option<String>,
    /// Settings of Redis that will end sessions one day.
    warnings: Vec<String>,
    /// Signals and questions that wait to be sent.
    queue: u64,
}

/// The routes of the admin listener, for requests to addresses, private names and these hosts. With a `key`, the admin
/// API is among them.
pub fn admin_routes(view: NodeView, hosts: &[String], key: Option<&Secret>) -> axum::Router {
    let hosts: Arc<[String]> = hosts.into();
    axum::Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .merge(key.map(admin::routes).unwrap_or_default())
        .layer(from_fn_with_state(hosts, headers::check_host))
        .layer(from_fn(headers::secure))
        .with_state(view)
}

async fn readyz(State(view): State<NodeView>) -> Response {
    let unready = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if view.is_draining() {
        return unready("draining\n".into());
    }
    let health = view.router().health();
    match health.trouble {
        _ if health.ready => "ready\n".into_response(),
        Some(trouble) => unready(format!("Redis cannot be used: {trouble}\n")),
        None => unready("starting: this node has not used Redis for long enough yet\n".into()),
    }
}

async fn metrics(State(view): State<NodeView>) -> Response {
    let (kind, text) = view.router().telemetry().metrics.exposition();
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(view): State<NodeView>) -> Json<Status> {
    let (health, draining) = (view.router().health(), view.is_draining());
    let seen = view.router().nodes_seen();
    Json(Status {
        node: view.router().node().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: view.uptime().as_secs(),
        draining,
        ready: health.ready && !draining,
        sessions: health.sessions,
        calls: health.calls,
        nodes_seen: seen.iter().map(ToString::to_string).collect(),
        broker: BrokerStatus {
            kind: view.broker_kind(),
            reached: health.broker_reached,
            trouble: health.trouble.map(|trouble| trouble.to_string()),
            warnings: health.warnings.iter().map(ToString::to_string).collect(),
            queue: health.broker_queue,
        },
    })
}
