//! The admin API: operators look at the users, calls and nodes of the whole cluster, and change them, by any node.
//!
//! It is served on the admin listener if `admin.token` is set. A node answers for its own sessions; the node that was
//! asked collects the answers of the others.

mod cluster;
mod revocations;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use sha2::{Digest as _, Sha256};
use tracing::info;

use self::cluster::Cursor;
use self::wire::{Calls, Message, Nodes, Revocations, Revoke, User, Users};
use super::node_view::NodeView;
use super::reject::Rejection;
use super::request::{bearer, media_type, parameter};
use crate::broker::Sent;
use crate::model::{Address, Body, Realm, Secret, Signal, SignalKind, UserName};

/// The description of the API, which it serves.
const OPENAPI: &str = include_str!("../../../docs/src/schema/admin.json");
/// How many entries a page has, if the request does not say, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 500;
/// The longest body of a message.
const MESSAGE_BYTES: usize = 64 * 1024;
/// The sender that users see, if the request does not say.
const SENDER: &str = "operator";

/// The routes, for whoever has the key.
pub(super) fn routes(key: &Secret) -> axum::Router<NodeView> {
    let key: Arc<[u8]> = digest(key.expose()).into();
    axum::Router::new()
        .route("/v1/users", get(users))
        .route("/v1/users/{name}", get(user))
        .route("/v1/users/{name}/messages", post(message))
        .route("/v1/users/{name}/kick", post(kick))
        .route("/v1/calls", get(calls))
        .route("/v1/nodes", get(nodes))
        .route("/v1/node/drain", post(drain))
        .route("/v1/revocations", post(revoke))
        .route_layer(from_fn_with_state(key, authorize))
        .route("/v1/openapi.json", get(openapi))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES))
}

/// Compares digests: the time that this takes tells nothing about the key.
async fn authorize(State(key): State<Arc<[u8]>>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        None => Rejection::NoAdminKey.into_response(),
        Some(given) if digest(given)[..] == key[..] => next.run(request).await,
        Some(_) => {
            let from = request.extensions().get::<SocketAddr>();
            let from = from.map(ToString::to_string);
            audit(
                "authorize",
                request.uri().path(),
                "forbidden",
                from.as_deref(),
            );
            Rejection::WrongAdminKey.into_response()
        }
    }
}

fn digest(key: &str) -> Vec<u8> {
    Sha256::digest(key).to_vec()
}

/// Writes one line of the audit log: who did what, and with which outcome.
fn audit(action: &str, subject: &str, outcome: &str, from: Option<&str>) {
    info!(target: "audit", action, subject, outcome, from, "Admin API");
}

/// Does something to a user, and writes that down.
async fn change<T>(
    action: &str,
    subject: &str,
    from: SocketAddr,
    outcome: &'static str,
    doing: impl Future<Output = Result<T, Rejection>>,
) -> Result<T, Rejection> {
    let done = doing.await;
    let outcome = done.as_ref().map_or_else(Rejection::code, |_| outcome);
    audit(action, subject, outcome, Some(&from.to_string()));
    done
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn users(State(view): State<NodeView>, uri: Uri) -> Result<Json<Users>, Rejection> {
    let (from, most) = page(&uri)?;
    view.users(from, most).await.map(Json)
}

async fn calls(State(view): State<NodeView>, uri: Uri) -> Result<Json<Calls>, Rejection> {
    let (from, most) = page(&uri)?;
    view.calls(from, most).await.map(Json)
}

async fn nodes(State(view): State<NodeView>) -> Result<Json<Nodes>, Rejection> {
    view.nodes().await.map(Json)
}

async fn user(
    State(view): State<NodeView>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<User>, Rejection> {
    view.user_of(&address(&name, &uri)?).await.map(Json)
}

async fn kick(
    State(view): State<NodeView>,
    Extension(from): Extension<SocketAddr>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Rejection> {
    let address = address(&name, &uri)?;
    let subject = address.to_string();
    let kicking = view.kick(&address);
    let session = change("kick", &subject, from, "kicked", kicking).await?;
    Ok(json(
        StatusCode::OK,
        &format!(r#"{{"kicked":true,"session":"{session}"}}"#),
    ))
}

async fn message(
    State(view): State<NodeView>,
    Extension(from): Extension<SocketAddr>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Rejection> {
    let address = address(&name, &uri)?;
    let wrong = Rejection::Bad(
        "The body is not {\\\"message\\\": anything, \\\"from\\\": name}, or from is not a valid name",
    );
    let Message {
        message,
        from: sender,
    } = object(&headers, &body)?.ok_or(wrong.clone())?;
    let sender = UserName::parse(sender.as_deref().unwrap_or(SENDER)).map_err(|_| wrong)?;
    let signal = Signal {
        kind: SignalKind::Message,
        body: Body(Bytes::from(String::from(Box::<str>::from(message)))),
    };
    let telling = async {
        match view.router().tell(&address, sender, signal).await? {
            Sent::To(holder) if holder.flags.detached => Ok("queued"),
            Sent::To(_) => Ok("delivered"),
            Sent::Full(_) => Err(Rejection::InboxFull),
            Sent::NoSubscriber(_) => Err(Rejection::Unavailable),
            Sent::Absent | Sent::NotCallable => Err(Rejection::NoUser),
        }
    };
    let subject = address.to_string();
    let status = change("message", &subject, from, "accepted", telling).await?;
    Ok(json(
        StatusCode::ACCEPTED,
        &format!(r#"{{"status":"{status}"}}"#),
    ))
}

async fn revoke(
    State(view): State<NodeView>,
    Extension(from): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Revocations>, Rejection> {
    let revoke: Option<Revoke> = object(&headers, &body)?;
    let revoke = revoke.ok_or(Rejection::Bad(
        "The body is not an object with sub, jti, realm, issued_before or for_seconds",
    ))?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let revoking = view.revoke(revoke.read(now.as_secs())?);
    let done = change("revoke", &revoke.subject(), from, "revoked", revoking).await?;
    Ok(Json(done))
}

async fn drain(State(view): State<NodeView>, Extension(from): Extension<SocketAddr>) -> Response {
    let node = view.router().node().as_str();
    audit("drain", node, "draining", Some(&from.to_string()));
    view.stop();
    json(
        StatusCode::ACCEPTED,
        &format!(r#"{{"draining":true,"node":"{node}"}}"#),
    )
}

/// The JSON object of a body; `None` if it is another one, or none.
fn object<T: for<'a> serde::Deserialize<'a>>(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Option<T>, Rejection> {
    if media_type(headers) != "application/json" {
        return Err(Rejection::JsonOnly);
    }
    // A list of the fields would be read, too.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    Ok(is_object.then(|| wire::read(body)).flatten())
}

fn json(status: StatusCode, text: &str) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, format!("{text}\n")).into_response()
}

/// The user of a path. Nobody has an invalid name.
fn address(name: &str, uri: &Uri) -> Result<Address, Rejection> {
    let name = UserName::known(name).map_err(|_| Rejection::NoUser)?;
    let realm = parameter(uri, "realm").unwrap_or_default();
    Ok(Address::new(Realm::new(&realm), name))
}

/// Where a page begins, and how many entries it may have.
fn page(uri: &Uri) -> Result<(Cursor, usize), Rejection> {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let limits: Vec<_> = query.filter(|(name, _)| name == "limit").collect();
    let most = match &limits[..] {
        [] => Some(PAGE),
        [(_, limit)] => limit.parse().ok(),
        _ => None,
    };
    let most = most.filter(|most| (1..=LONGEST_PAGE).contains(most));
    let most = most.ok_or(Rejection::Bad("limit must be one number from 1 to 500"))?;
    let from = parameter(uri, "cursor");
    Ok((from.as_deref().map(Cursor::read).unwrap_or_default(), most))
}
