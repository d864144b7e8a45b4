//! Exports spans and metrics with OTLP, configured by the standard `OTEL_*` variables.
//!
//! The SDK reads endpoints, headers, timeouts and queue bounds itself. No request waits for an
//! export: spans go into a bounded queue that a thread empties, and are dropped if it is full.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gethostname::gethostname;
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, ShouldSample};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::counting::{BoundedSpans, CountingPush, CountingSpans, PushCounter};
use super::metrics::Metrics;
use super::{Settings, StartError};
use crate::model::NodeId;

/// The protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP.
    Http,
}

/// How to export a signal; the SDK reads endpoint, headers and compression itself.
#[derive(Clone, Debug)]
pub struct Export {
    /// The protocol.
    pub protocol: Protocol,
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
                .with_tls_config(grpc_tls($export))
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
    queue: usize,
    resource: Resource,
    metrics: &Metrics,
) -> Result<SdkTracerProvider, StartError> {
    let inner = exporter!(SpanExporter, export);
    let exporter = CountingSpans::new(inner, metrics.spans());
    let waiting = exporter.waiting();
    let batches = BatchSpanProcessor::builder(exporter).build();
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .with_span_processor(BoundedSpans::new(batches, queue, waiting, metrics.spans()))
        .build())
}

/// TLS for gRPC, if the endpoint uses it.
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
