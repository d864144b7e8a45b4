//! Exports spans and metrics with OTLP, configured by the standard `OTEL_*` variables.
//!
//! The SDK reads headers and compression itself, and endpoints for HTTP. No request waits for an export: spans go into
//! a [bounded queue](super::span_queue) that a thread empties.

use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gethostname::gethostname;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, ShouldSample, SpanExporter as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::counting::{CountingPush, PushCounter};
use super::metrics::Metrics;
use super::span_queue::{SpanLimits, SpanQueue};
use super::{Settings, StartError};
use crate::model::NodeId;

/// Time limit for connecting to a collector.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// A gRPC connection that answers no ping within this time is dead; one that is idle is asked as often. A collector's
/// machine that vanishes closes nothing, and its name may point elsewhere by then.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP.
    Http,
}

/// How to export a signal; the SDK reads headers and compression itself.
#[derive(Clone, Debug)]
pub struct Export {
    /// The protocol.
    pub protocol: Protocol,
    /// Where the collector takes gRPC. The SDK reads the URL for HTTP itself.
    pub endpoint: String,
    /// Time limit for one export.
    pub timeout: Duration,
    /// The authorities whose certificates are trusted, instead of the public ones (PEM).
    pub certificate: Option<Vec<u8>>,
    /// The certificate that this node shows, and its key (PEM).
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Which calls are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The sampled fraction, from 0 to 1.
    pub ratio: f64,
    /// Whether the sampled flag of a client's own trace decides instead.
    pub parent_decides: bool,
}

impl Sampling {
    /// The SDK's sampler.
    pub(super) fn sampler(self) -> Box<dyn ShouldSample> {
        let root = match self.ratio {
            ..=0.0 => Sampler::AlwaysOff,
            1.0.. => Sampler::AlwaysOn,
            ratio => Sampler::TraceIdRatioBased(ratio),
        };
        if self.parent_decides {
            Box::new(Sampler::ParentBased(Box::new(root)))
        } else {
            Box::new(root)
        }
    }
}

/// The resource attributes. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` override them.
pub(super) fn resource(settings: &Settings, node: &NodeId) -> Resource {
    let ours = [
        KeyValue::new("service.name", "switchboard"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.as_str().to_owned()),
        // Jaeger corrects clock skew between hosts. With the same `host.name` it leaves timestamps
        // unchanged.
        KeyValue::new("host.name", gethostname().to_string_lossy().into_owned()),
    ];
    let told = settings
        .resource
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(ours.into_iter().chain(told))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match &settings.service_name {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

/// An exporter of one signal. The builders of the SDK have no type in common.
macro_rules! exporter {
    ($kind:ident, $export:expr) => {
        match $export.protocol {
            Protocol::Grpc => $kind::builder()
                .with_tonic()
                .with_timeout($export.timeout)
                .with_channel(channel($export)?)
                .build()?,
            Protocol::Http => $kind::builder()
                .with_http()
                .with_timeout($export.timeout)
                .with_http_client(http_client($export)?)
                .build()?,
        }
    };
}

/// The periodic exporter of metrics, and where to set the counter of its pushes.
pub(super) fn push(
    export: &Export,
) -> Result<(PeriodicReader<CountingPush>, PushCounter), StartError> {
    let inner = exporter!(MetricExporter, export);
    let counter: PushCounter = Arc::new(OnceLock::new());
    let exporter = CountingPush::new(inner, Arc::clone(&counter));
    Ok((PeriodicReader::builder(exporter).build(), counter))
}

/// The exporter of spans. It samples everything: whoever creates a span has decided already.
pub(super) fn spans(
    export: &Export,
    limits: SpanLimits,
    resource: Resource,
    metrics: &Metrics,
) -> Result<SdkTracerProvider, StartError> {
    let mut exporter = exporter!(SpanExporter, export);
    exporter.set_resource(&resource);
    let queue = SpanQueue::start(exporter, limits, metrics.spans());
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .with_span_processor(queue)
        .build())
}

/// A channel that connects when it is used, finds a collector that has moved, and asks whether its connection lives.
fn channel(export: &Export) -> Result<Channel, StartError> {
    let wrong =
        |error: tonic::transport::Error| ExporterBuildError::InternalFailure(error.to_string());
    let endpoint = Endpoint::from_str(&export.endpoint).map_err(wrong)?;
    let is_https = endpoint.uri().scheme_str() == Some("https");
    let endpoint = if is_https {
        endpoint.tls_config(grpc_tls(export)).map_err(wrong)?
    } else {
        endpoint
    };
    Ok(endpoint
        .timeout(export.timeout)
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

fn grpc_tls(export: &Export) -> ClientTlsConfig {
    let tls = ClientTlsConfig::new();
    let tls = match &export.certificate {
        Some(authorities) => tls.ca_certificate(Certificate::from_pem(authorities)),
        None => tls.with_webpki_roots(),
    };
    match &export.client {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
        None => tls,
    }
}

/// A client for HTTP, with TLS if the endpoint uses it. Built by a thread of its own, since it must not be in a task.
fn http_client(export: &Export) -> Result<reqwest::blocking::Client, StartError> {
    let (tls, timeout) = (http_tls(export)?, export.timeout);
    let make = move || {
        reqwest::blocking::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(timeout)
            .connect_timeout(CONNECT_WITHIN)
            // Exports are seconds apart: each finds a collector that has moved.
            .pool_max_idle_per_host(0)
            .build()
    };
    let built = std::thread::spawn(make).join();
    let built = built.map_err(|_| StartError::Tls("the HTTP client panicked".to_owned()))?;
    built.map_err(|error| StartError::Tls(error.to_string()))
}

fn http_tls(export: &Export) -> Result<ClientConfig, StartError> {
    let wrong = |error: &dyn std::fmt::Display| StartError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    match &export.certificate {
        Some(authorities) => {
            for authority in CertificateDer::pem_slice_iter(authorities) {
                let authority = authority.map_err(|error| wrong(&error))?;
                roots.add(authority).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(
                    &"the certificate file has no certificate in PEM format",
                ));
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &export.client else {
        return Ok(tls.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&error))?;
    tls.with_client_auth_cert(chain, key)
        .map_err(|error| wrong(&error))
}
