//! An OTLP receiver over gRPC and HTTP that keeps what it gets, and can refuse or never answer.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::PATIENCE;
use crate::tls_listener::TlsListener;

/// How it answers an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Accept,
    /// `UNAVAILABLE` or 503.
    Refuse,
    /// Never.
    Hang,
}

/// A span as it was exported.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    pub span: Span,
    pub resource: BTreeMap<String, String>,
    /// The whole span as text, to search for what must not be in it.
    pub text: String,
}

impl ReceivedSpan {
    pub fn trace(&self) -> String {
        hex::encode(&self.span.trace_id)
    }

    pub fn id(&self) -> String {
        hex::encode(&self.span.span_id)
    }

    pub fn parent(&self) -> String {
        hex::encode(&self.span.parent_span_id)
    }

    pub fn links(&self) -> Vec<String> {
        let links = self.span.links.iter();
        links.map(|link| hex::encode(&link.span_id)).collect()
    }

    pub fn name(&self) -> &str {
        &self.span.name
    }

    pub fn kind(&self) -> SpanKind {
        self.span.kind()
    }

    pub fn is_error(&self) -> bool {
        let status = self.span.status.as_ref();
        status.is_some_and(|status| status.code() == SpanStatus::Error)
    }

    /// An attribute; empty if there is none of this key.
    pub fn attribute(&self, key: &str) -> String {
        attributes(&self.span.attributes)
            .remove(key)
            .unwrap_or_default()
    }

    pub fn instance(&self) -> &str {
        &self.resource["service.instance.id"]
    }

    pub fn events(&self) -> Vec<&str> {
        let events = self.span.events.iter();
        events.map(|event| event.name.as_str()).collect()
    }

    pub fn end(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.span.end_time_unix_nano)
    }

    pub fn duration(&self) -> Duration {
        let nanoseconds = self.span.end_time_unix_nano - self.span.start_time_unix_nano;
        Duration::from_nanos(nanoseconds)
    }

    /// A line for the message of a failed test.
    pub fn line(&self) -> String {
        format!(
            "{} {} {} < {} ({:?}) {} {:?} {} {}",
            &self.trace()[..8],
            self.instance(),
            self.id(),
            self.parent(),
            self.links(),
            self.name(),
            self.kind(),
            self.attribute("switchboard.signal"),
            self.attribute("error.type"),
        )
    }
}

#[derive(Clone)]
struct Store {
    mode: Arc<AtomicUsize>,
    exports: Arc<AtomicUsize>,
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
    metrics: Arc<AtomicUsize>,
}

/// A running receiver. It ends when this value is dropped.
pub struct Collector {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    store: Store,
    tasks: Vec<JoinHandle<()>>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1").await
    }

    /// Starts it on another address of this machine.
    pub async fn start_on(address: &str) -> Self {
        Self::start_with(address, None).await
    }

    /// Starts it with TLS: a certificate and its key (PEM). Clients need a certificate of `authority`, if there is one.
    pub async fn start_tls(certificate: &str, key: &str, authority: Option<&str>) -> Self {
        Self::start_with("127.0.0.1", Some((certificate, key, authority))).await
    }

    async fn start_with(address: &str, tls: Option<(&str, &str, Option<&str>)>) -> Self {
        let store = Store {
            mode: Arc::default(),
            exports: Arc::default(),
            spans: Arc::default(),
            metrics: Arc::default(),
        };
        let grpc = TcpListener::bind((address, 0)).await.unwrap();
        let http = TcpListener::bind((address, 0)).await.unwrap();
        let addresses = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let mut server = Server::builder();
        if let Some((certificate, key, authority)) = tls {
            let identity = Identity::from_pem(certificate, key);
            let mut tls = ServerTlsConfig::new().identity(identity);
            if let Some(authority) = authority {
                tls = tls.client_ca_root(Certificate::from_pem(authority));
            }
            server = server.tls_config(tls).unwrap();
        }
        let services = server
            .add_service(TraceServiceServer::new(store.clone()).accept_compressed(Gzip))
            .add_service(MetricsServiceServer::new(store.clone()).accept_compressed(Gzip));
        let routes = Router::new()
            .route("/v1/traces", post(take_spans))
            .route("/v1/metrics", post(take_metrics))
            .with_state(store.clone());
        let over_grpc = tokio::spawn(async move {
            let incoming = TcpIncoming::from(grpc);
            services.serve_with_incoming(incoming).await.unwrap();
        });
        let over_http = match tls {
            Some((certificate, key, authority)) => {
                let http = TlsListener::new(http, certificate, key, authority);
                tokio::spawn(async move { axum::serve(http, routes).await.unwrap() })
            }
            None => tokio::spawn(async move { axum::serve(http, routes).await.unwrap() }),
        };
        Self {
            grpc: addresses.0,
            http: addresses.1,
            store,
            tasks: vec![over_grpc, over_http],
        }
    }

    pub fn set_mode(&self, mode: Mode) {
        self.store.mode.store(mode as usize, Ordering::SeqCst);
    }

    /// How many exports were tried.
    pub fn exports(&self) -> usize {
        self.store.exports.load(Ordering::SeqCst)
    }

    /// How many metrics were pushed.
    pub fn metrics(&self) -> usize {
        self.store.metrics.load(Ordering::SeqCst)
    }

    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.store.spans.lock().unwrap().clone()
    }

    /// Waits until `check` returns a value for the spans received so far.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        mut check: impl FnMut(&[ReceivedSpan]) -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = check(&self.spans()) {
                return found;
            }
            if begun.elapsed() > PATIENCE {
                let lines: Vec<String> = self.spans().iter().map(ReceivedSpan::line).collect();
                panic!("not within {PATIENCE:?}: {what}\n{}", lines.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Store {
    /// Counts an export; whether it is accepted.
    async fn accepts(&self) -> bool {
        self.exports.fetch_add(1, Ordering::SeqCst);
        match self.mode.load(Ordering::SeqCst) {
            mode if mode == Mode::Hang as usize => std::future::pending().await,
            mode => mode == Mode::Accept as usize,
        }
    }

    fn keep(&self, request: ExportTraceServiceRequest) {
        let mut received = Vec::new();
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let resource = attributes(&resource.attributes);
            for span in of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                received.push(ReceivedSpan {
                    text: format!("{span:?} {resource:?}"),
                    resource: resource.clone(),
                    span,
                });
            }
        }
        self.spans.lock().unwrap().extend(received);
    }

    fn count(&self, request: &ExportMetricsServiceRequest) {
        let scopes = request
            .resource_metrics
            .iter()
            .flat_map(|of| &of.scope_metrics);
        let metrics = scopes.map(|scope| scope.metrics.len()).sum();
        self.metrics.fetch_add(metrics, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl TraceService for Store {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if !self.accepts().await {
            return Err(Status::unavailable("not now"));
        }
        self.keep(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Store {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if !self.accepts().await {
            return Err(Status::unavailable("not now"));
        }
        self.count(&request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn take_spans(
    State(store): State<Store>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    if !store.accepts().await {
        return (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    }
    store.keep(ExportTraceServiceRequest::decode(plain(&headers, body)).unwrap());
    let response = ExportTraceServiceResponse::default();
    (StatusCode::OK, response.encode_to_vec())
}

async fn take_metrics(
    State(store): State<Store>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    if !store.accepts().await {
        return (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    }
    store.count(&ExportMetricsServiceRequest::decode(plain(&headers, body)).unwrap());
    let response = ExportMetricsServiceResponse::default();
    (StatusCode::OK, response.encode_to_vec())
}

/// A body without its compression.
fn plain(headers: &HeaderMap, body: Bytes) -> Bytes {
    if !headers.contains_key(CONTENT_ENCODING) {
        return body;
    }
    let mut plain = Vec::new();
    GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
    plain.into()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = list.iter();
    pairs
        .map(|pair| (pair.key.clone(), text(&pair.value)))
        .collect()
}
