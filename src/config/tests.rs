use super::*;

fn load(environment: &[(&str, &str)]) -> Result<(Config, String), Mistakes> {
    let environment = environment
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Config::load(Sources {
        environment,
        ..Sources::default()
    })
}

#[test]
fn the_defaults_are_a_standalone_node() {
    let (config, effective) = load(&[]).unwrap();
    assert!(matches!(config.backend, Backend::Embedded));
    assert_eq!(config.listen, "0.0.0.0:9090".parse().unwrap());
    assert_eq!(config.drain_deadline, Duration::from_secs(20));
    assert!(
        effective.contains("presence.ttl = \"30s\"\n"),
        "{effective}"
    );
}

#[test]
fn later_layers_win() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(
        file.path(),
        "node_id = \"file\"\n[presence]\nttl = \"60s\"\ngrace = \"1s\"\n",
    )
    .unwrap();
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: [
            ("SWITCHBOARD_NODE_ID", "env"),
            ("SWITCHBOARD_PRESENCE__GRACE", "2s"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        flags: vec![("node_id".to_owned(), "flag".to_owned())],
    };
    let (config, _) = Config::load(sources).unwrap();
    assert_eq!(config.node_id, "flag");
    assert_eq!(config.presence.grace, Duration::from_secs(2));
    assert_eq!(config.presence.ttl, Duration::from_mins(1));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let mistakes = load(&[
        ("SWITCHBOARD_LISTEN", "nowhere"),
        ("SWITCHBOARD_PRESENCE__TTL", "3s"),
        ("SWITCHBOARD_DRAIN__DEADLINE", "soon"),
        ("SWITCHBOARD_REDIS__MODE", "cluster"),
        ("SWITCHBOARD_LIMITS__SIGNALS_PER_SECOND", "-1"),
        ("SWITCHBOARD_TYPO", "1"),
    ])
    .unwrap_err()
    .to_string();
    for expected in [
        "6 mistake(s)",
        "listen = \"nowhere\" (from SWITCHBOARD_LISTEN) is not an address such as",
        "presence.ttl = \"3s\" (from SWITCHBOARD_PRESENCE__TTL) is too short",
        "drain.deadline = \"soon\"",
        "redis.mode = \"cluster\" (from SWITCHBOARD_REDIS__MODE) sentinel and cluster are not supported yet",
        "limits.signals_per_second = \"-1\"",
        "SWITCHBOARD_TYPO is not a setting",
    ] {
        assert!(
            mistakes.contains(expected),
            "{expected} is not in:\n{mistakes}"
        );
    }
}

#[test]
fn kubernetes_service_variables_are_ignored() {
    let link = [
        ("SWITCHBOARD_PORT", "tcp://10.0.0.1:9090"),
        ("SWITCHBOARD_SERVICE_HOST", "10.0.0.1"),
    ];
    assert!(load(&link).is_ok());
}

#[test]
fn passwords_are_never_printed() {
    let url = (
        "SWITCHBOARD_REDIS__URL",
        "redis://user:hunter2@localhost:6379",
    );
    let (config, effective) = load(&[url]).unwrap();
    assert!(
        !effective.contains("hunter2") && effective.contains("redis.url = \"(hidden)\""),
        "{effective}"
    );
    assert!(!format!("{config:?}").contains("hunter2"));
    let mistakes =
        load(&[("SWITCHBOARD_REDIS__URL", "redis://user:hunter2@a,redis://b")]).unwrap_err();
    assert!(!mistakes.to_string().contains("hunter2"));
}

/// The ICE servers as `switchboard config` prints them.
fn ice_servers(text: &str) -> String {
    let (config, effective) = load(&[
        ("SWITCHBOARD_ICE__SERVERS", text),
        ("SWITCHBOARD_ICE__TURN_SECRET", "hunter2"),
    ])
    .unwrap();
    assert!(!format!("{config:?}{effective}").contains("hunter2"));
    let line = effective
        .lines()
        .find_map(|line| line.strip_prefix("ice.servers = "));
    line.unwrap().to_owned()
}

#[test]
fn ice_servers_are_urls_json_or_toml() {
    let plain =
        r#"[{ urls = ["stun:a.example"] }, { urls = ["turn:a.example:3478?transport=udp"] }]"#;
    for written in [
        "stun:a.example, turn:a.example:3478?transport=udp",
        r#"["stun:a.example", {"urls": "turn:a.example:3478?transport=udp"}]"#,
        r#"[{"urls": ["stun:a.example"]}, {"urls": ["turn:a.example:3478?transport=udp"]}]"#,
        plain,
    ] {
        assert_eq!(ice_servers(written), plain, "{written}");
    }
    assert_eq!(ice_servers(""), "[]");
    assert_eq!(
        ice_servers(
            r#"[{"urls": "turns:[2001:db8::1]:443", "username": "u", "credential": "hunter2"}]"#
        ),
        r#"[{ urls = ["turns:[2001:db8::1]:443"], username = "u", credential = "(hidden)" }]"#
    );

    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(
        file.path(),
        "[ice]\nturn_secret = \"007\"\n[[ice.servers]]\nurls = [\"stun:b\", \"turn:b\"]\n",
    )
    .unwrap();
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let (config, effective) = Config::load(sources).unwrap();
    assert!(effective.contains(r#"ice.servers = [{ urls = ["stun:b", "turn:b"] }]"#));
    assert!(effective.contains("ice.turn_secret = \"(hidden)\""));
    assert_eq!(config.ice.renewed_after(), Some(Duration::from_hours(6)));
}

#[test]
fn a_numeric_secret_stays_a_text() {
    let user = crate::model::UserName::parse("user").unwrap();
    let user = crate::model::Address::new(crate::model::Realm::default(), user);
    let credential = |secret| {
        let servers = ("SWITCHBOARD_ICE__SERVERS", "turn:a");
        let (config, _) = load(&[servers, ("SWITCHBOARD_ICE__TURN_SECRET", secret)]).unwrap();
        let servers = config.ice.servers_for(&user).servers;
        servers[0].login.clone().unwrap().username
    };
    // The pseudonym in the user name depends on the secret.
    let pseudonym = |secret| credential(secret).split_once(':').unwrap().1.to_owned();
    assert_ne!(pseudonym("007"), pseudonym("7"));
    assert_ne!(pseudonym("1e3"), pseudonym("1000"));
}

#[test]
fn ice_servers_that_browsers_refuse_are_refused_at_startup() {
    for (servers, what) in [
        ("stun://a.example", "has no valid host after the scheme"),
        ("turn:", "has no valid host"),
        ("http://a", "does not begin with stun:"),
        ("a.example:3478", "does not begin with stun:"),
        ("stun:a?transport=udp", "only turn: and turns: URLs"),
        ("turn:a?transport=sctp", "?transport=udp or ?transport=tcp"),
        ("stun:a:0", "has an invalid port"),
        ("stun:a:70000", "has an invalid port"),
        ("stun:[::1", "has no valid host"),
        ("stun:[::x]:1", "has no valid host"),
        ("stun:a b", "has no valid host"),
        ("[{}]", "server 1 has no urls"),
        (r#"["stun:a", {"urls": []}]"#, "server 2 has no urls"),
        (r#"[{"url": "stun:a"}]"#, "neither a URL nor a table"),
        ("[1]", "neither a URL nor a table"),
        (
            r#"[{"urls": "turn:a", "username": "hunter2"}]"#,
            "only one of username and credential",
        ),
        (
            r#"[{"urls": "turn:a", "credential": "hunter2"}]"#,
            "only one of username and credential",
        ),
        (
            r#"[{"urls": "turn:a", "username": "u", "credential": "hunter2"}"#,
            "is not a list",
        ),
        (
            "turn:a",
            "is a relay without credentials: set ice.turn_secret",
        ),
    ] {
        let mistakes = load(&[("SWITCHBOARD_ICE__SERVERS", servers)]).unwrap_err();
        let mistakes = mistakes.to_string();
        assert!(mistakes.contains(what), "{servers}: {mistakes}");
        assert!(mistakes.contains("SWITCHBOARD_ICE__SERVERS"), "{mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
    let mistakes = load(&[("SWITCHBOARD_ICE__TURN_TTL", "900ms")]).unwrap_err();
    assert!(mistakes.to_string().contains("ice.turn_ttl"), "{mistakes}");
}

#[test]
fn lists_are_comma_separated_or_toml() {
    let (config, _) = load(&[(
        "SWITCHBOARD_LIMITS__ORIGINS",
        "https://a.example, https://b.example",
    )])
    .unwrap();
    assert_eq!(
        config.limits.origins,
        ["https://a.example", "https://b.example"]
    );
    let (config, _) = load(&[("SWITCHBOARD_LIMITS__ORIGINS", "[\"https://a.example\"]")]).unwrap();
    assert_eq!(config.limits.origins, ["https://a.example"]);
    assert!(load(&[("SWITCHBOARD_LIMITS__ORIGINS", "[https://a.example")]).is_err());
}

#[test]
fn traces_are_exported_if_an_endpoint_or_exporter_is_set() {
    use crate::telemetry::Protocol;
    let traces = |environment: &[(&str, &str)]| {
        let telemetry = load(environment).unwrap().0.telemetry;
        (telemetry.traces, telemetry.metrics)
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let (http, by_grpc) = (Some(Protocol::Http), Some(Protocol::Grpc));
    assert_eq!(traces(&[]), (None, None));
    assert_eq!(traces(&[grpc]), (None, None));
    assert_eq!(traces(&[endpoint]), (http, http));
    assert_eq!(traces(&[endpoint, grpc]), (by_grpc, by_grpc));
    assert_eq!(traces(&[("OTEL_TRACES_EXPORTER", "otlp")]), (http, None));
    assert_eq!(
        traces(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]),
        (http, None)
    );
    assert_eq!(
        traces(&[endpoint, ("OTEL_SDK_DISABLED", "true")]),
        (None, None)
    );
    let (config, _) = load(&[
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ("POD_NAME", "switchboard-0"),
    ])
    .unwrap();
    let sampling = config.telemetry.sampling;
    assert!(sampling.parent_decides && (sampling.ratio - 0.01).abs() < 1e-9);
    assert_eq!(
        config.telemetry.resource,
        [("k8s.pod.name".to_owned(), "switchboard-0".to_owned())]
    );
    let mistakes = load(&[
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("SWITCHBOARD_TELEMETRY__USER_NAMES", "shown"),
    ])
    .unwrap_err()
    .to_string();
    for expected in [
        "4 mistake(s)",
        "OTEL_TRACES_EXPORTER = \"zipkin\" is not supported: use otlp or none",
        "OTEL_EXPORTER_OTLP_PROTOCOL = \"http/json\" is not supported",
        "OTEL_TRACES_SAMPLER = \"jaeger_remote\" is not supported",
        "telemetry.user_names = \"shown\" (from SWITCHBOARD_TELEMETRY__USER_NAMES) is not one of plain, hashed, omit",
    ] {
        assert!(
            mistakes.contains(expected),
            "{expected} is not in:\n{mistakes}"
        );
    }
}
