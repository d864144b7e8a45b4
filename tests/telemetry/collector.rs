//! An OTLP receiver, over gRPC and over HTTP, that keeps what it is sent, and can be made slow or unwilling.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
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
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::PATIENCE;

/// How it treats whoever exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Kind,
    Refusing,
    /// It never answers.
    Slow,
}

/// A span as it was exported.
#[derive(Clone, Debug)]
pub struct Seen {
    pub span: Span,
    pub resource: BTreeMap<String, String>,
    /// All of it, as text: for what must not be in it.
    pub text: String,
}

impl Seen {
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

    /// An attribute, or nothing.
    pub fn says(&self, key: &str) -> String {
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

    pub fn ended(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.span.end_time_unix_nano)
    }

    pub fn lasted(&self) -> Duration {
        let nanoseconds = self.span.end_time_unix_nano - self.span.start_time_unix_nano;
        Duration::from_nanos(nanoseconds)
    }

    /// In a line, for whoever reads a failure.
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
            self.says("switchboard.signal"),
            self.says("error.type"),
        )
    }
}

#[derive(Clone)]
struct Desk {
    manner: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    spans: Arc<Mutex<Vec<Seen>>>,
    figures: Arc<AtomicUsize>,
}

/// The receiver; gone when dropped.
pub struct Collector {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    desk: Desk,
    tasks: Vec<JoinHandle<()>>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1").await
    }

    /// On an address of this machine.
    pub async fn start_on(address: &str) -> Self {
        let desk = Desk {
            manner: Arc::default(),
            asked: Arc::default(),
            spans: Arc::default(),
            figures: Arc::default(),
        };
        let grpc = TcpListener::bind((address, 0)).await.unwrap();
        let http = TcpListener::bind((address, 0)).await.unwrap();
        let addresses = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let services = Server::builder()
            .add_service(TraceServiceServer::new(desk.clone()))
            .add_service(MetricsServiceServer::new(desk.clone()));
        let routes = Router::new()
            .route("/v1/traces", post(take_spans))
            .route("/v1/metrics", post(take_figures))
            .with_state(desk.clone());
        let tasks = vec![
            tokio::spawn(async move {
                services
                    .serve_with_incoming(TcpIncoming::from(grpc))
                    .await
                    .unwrap();
            }),
            tokio::spawn(async move { axum::serve(http, routes).await.unwrap() }),
        ];
        Self {
            grpc: addresses.0,
            http: addresses.1,
            desk,
            tasks,
        }
    }

    pub fn is(&self, manner: Manner) {
        self.desk.manner.store(manner as usize, Ordering::SeqCst);
    }

    /// How often somebody tried to export.
    pub fn asked(&self) -> usize {
        self.desk.asked.load(Ordering::SeqCst)
    }

    /// How many figures were pushed.
    pub fn figures(&self) -> usize {
        self.desk.figures.load(Ordering::SeqCst)
    }

    pub fn spans(&self) -> Vec<Seen> {
        self.desk.spans.lock().unwrap().clone()
    }

    /// Waits until the spans are as wanted, and returns what was made of them.
    pub async fn shows<T>(&self, what: &str, mut check: impl FnMut(&[Seen]) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = check(&self.spans()) {
                return found;
            }
            if begun.elapsed() > PATIENCE {
                let lines: Vec<String> = self.spans().iter().map(Seen::line).collect();
                panic!("never: {what}\n{}", lines.join("\n"));
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

impl Desk {
    /// Whether it takes anything.
    async fn opens(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.manner.load(Ordering::SeqCst) {
            manner if manner == Manner::Slow as usize => std::future::pending().await,
            manner => manner == Manner::Kind as usize,
        }
    }

    fn keep(&self, request: ExportTraceServiceRequest) {
        let mut seen = Vec::new();
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let resource = attributes(&resource.attributes);
            for span in of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                seen.push(Seen {
                    text: format!("{span:?} {resource:?}"),
                    resource: resource.clone(),
                    span,
                });
            }
        }
        self.spans.lock().unwrap().extend(seen);
    }

    fn count(&self, request: &ExportMetricsServiceRequest) {
        let scopes = request
            .resource_metrics
            .iter()
            .flat_map(|of| &of.scope_metrics);
        let figures = scopes.map(|scope| scope.metrics.len()).sum();
        self.figures.fetch_add(figures, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl TraceService for Desk {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if !self.opens().await {
            return Err(Status::unavailable("not now"));
        }
        self.keep(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Desk {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if !self.opens().await {
            return Err(Status::unavailable("not now"));
        }
        self.count(&request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn take_spans(State(desk): State<Desk>, body: Bytes) -> (StatusCode, Vec<u8>) {
    if !desk.opens().await {
        return (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    }
    desk.keep(ExportTraceServiceRequest::decode(body).unwrap());
    let answer = ExportTraceServiceResponse::default();
    (StatusCode::OK, answer.encode_to_vec())
}

async fn take_figures(State(desk): State<Desk>, body: Bytes) -> (StatusCode, Vec<u8>) {
    if !desk.opens().await {
        return (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    }
    desk.count(&ExportMetricsServiceRequest::decode(body).unwrap());
    let answer = ExportMetricsServiceResponse::default();
    (StatusCode::OK, answer.encode_to_vec())
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(so)) => so.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = list.iter();
    pairs
        .map(|pair| (pair.key.clone(), text(&pair.value)))
        .collect()
}
