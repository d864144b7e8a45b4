//! Collectors behind TLS, with a certificate of an authority of one's own.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use testing::collector::Collector;
use testing::{Client, Node, eventually};

/// The certificate of an authority, and one that it has signed for localhost, with its key.
fn certificates() -> [String; 3] {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let own = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let wanted = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = wanted.signed_by(&key, &issuer).unwrap();
    [own, certificate.pem(), key.serialize_pem()]
}

async fn call(node: &Node) -> [Client; 2] {
    let mut one = Client::login(node.address, "TracedUserA").await;
    let mut other = Client::login(node.address, "TracedUserB").await;
    one.call(&mut other).await;
    [one, other]
}

#[tokio::test]
async fn spans_and_metrics_reach_a_collector_behind_tls() {
    let [authority, certificate, key] = certificates();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    for (protocol, compression) in [
        ("http/protobuf", "none"),
        ("http/protobuf", "gzip"),
        ("grpc", "none"),
        ("grpc", "gzip"),
    ] {
        let collector = Collector::start_tls(&certificate, &key, None).await;
        let address = match protocol {
            "grpc" => collector.grpc,
            _ => collector.http,
        };
        let endpoint = format!("https://localhost:{}", address.port());
        let trusting = file.to_str().unwrap();
        let mut environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ];
        // Public authorities only.
        let node = Node::start_in(None, &[], &environment).await;
        let _users = call(&node).await;
        crate::setup::logged(&node, &["Cannot export spans"]).await;
        crate::setup::logged(&node, &["Cannot push metrics"]).await;
        assert_eq!((collector.spans().len(), collector.metrics()), (0, 0));

        environment.push(("OTEL_EXPORTER_OTLP_CERTIFICATE", trusting));
        let node = Node::start_in(None, &[], &environment).await;
        let _users = call(&node).await;
        eventually(
            &format!("exports by {protocol}, {compression}"),
            async || (!collector.spans().is_empty() && collector.metrics() > 0).then_some(()),
        )
        .await;
        assert!(!node.log().contains("Cannot "), "{}", node.log());
        eventually("pushes are counted", async || {
            let metrics = node.metrics().await;
            let exported = "switchboard_metrics_pushes_total{result=\"exported\"} ";
            let line = metrics.lines().find_map(|line| line.strip_prefix(exported));
            (line.unwrap() != "0").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_shows_its_certificate_to_a_collector_that_asks_for_one() {
    let [authority, certificate, key] = certificates();
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("authority", &authority),
        ("certificate", &certificate),
        ("key", &key),
    ];
    let [authority_file, certificate_file, key_file] = files.map(|(name, text)| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    });
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start_tls(&certificate, &key, Some(&authority)).await;
        let address = match protocol {
            "grpc" => collector.grpc,
            _ => collector.http,
        };
        let endpoint = format!("https://localhost:{}", address.port());
        let mut environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority_file),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ];
        let node = Node::start_in(None, &[], &environment).await;
        crate::setup::logged(&node, &["Cannot push metrics"]).await;
        assert_eq!(collector.metrics(), 0);
        environment.push(("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate_file));
        environment.push(("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key_file));
        let _node = Node::start_in(None, &[], &environment).await;
        eventually(&format!("metrics by {protocol}"), async || {
            (collector.metrics() > 0).then_some(())
        })
        .await;
    }
}
