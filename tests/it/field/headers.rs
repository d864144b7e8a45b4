//! Headers of every answer, and the hosts of the admin listener.

use testing::http::{self, EventStream};
use testing::http_session::Downlink;
use testing::{Cluster, HttpSession};

/// Answers of every kind on the client listener: method, path and status. Only those below are for caches.
const ANSWERS: [(&str, &str, u16); 20] = [
    ("GET", "/", 200),
    ("GET", "/ws", 426),
    ("GET", "/elsewhere", 404),
    ("POST", "/elsewhere", 404),
    ("DELETE", "/v1/whoami", 405),
    ("GET", "/v1/whoami", 200),
    ("OPTIONS", "/v1/whoami", 204),
    ("GET", "/v1/ice-servers", 401),
    ("POST", "/v1/sessions", 201),
    ("GET", "/v1/sessions", 405),
    ("GET", "/v1/events", 401),
    ("POST", "/v1/messages", 401),
    ("GET", "/peerjs", 404),
    ("GET", "/peerjs/", 404),
    ("GET", "/peerjs/id", 200),
    ("OPTIONS", "/peerjs/id", 204),
    ("GET", "/peerjs/peers", 401),
    ("GET", "/doctor", 200),
    ("GET", "/page/page.js", 200),
    ("GET", "/client/switchboard.js", 200),
];
const CACHED: [&str; 3] = ["/doctor", "/page/page.js", "/client/switchboard.js"];

#[tokio::test]
async fn every_answer_is_nosniff_and_what_is_not_public_is_not_stored() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let node = &cluster.nodes[0];
    for (method, path, status) in ANSWERS {
        let answer = http::request(node.address, method, path, &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(
            answer.header("x-content-type-options"),
            "nosniff",
            "{method} {path}"
        );
        let caching = if CACHED.contains(&path) {
            "no-cache"
        } else {
            "no-store"
        };
        assert_eq!(answer.header("cache-control"), caching, "{method} {path}");
    }
    for path in ["/livez", "/readyz", "/status", "/metrics", "/elsewhere"] {
        let answer = http::get(node.admin, path).await.unwrap();
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
    let session = HttpSession::login(node.address, Downlink::Poll, "a").await;
    let poll = format!("/v1/events?mode=poll&wait=0&session={}", session.token);
    let stream = EventStream::open(node.address, &session.token, None)
        .await
        .unwrap();
    let poll = http::get(node.address, &poll).await.unwrap();
    assert_eq!(poll.status, 200);
    for headers in [&stream.headers, &poll.headers] {
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let caching = headers["cache-control"].to_str().unwrap();
        assert!(caching.starts_with("no-store"), "{caching}");
    }
}

#[tokio::test]
async fn refusals_of_origins_upgrades_and_limits_have_them_too() {
    let rules = [
        ("limits.origins", "https://app.example"),
        ("limits.connections_per_ip", "1"),
    ];
    let cluster = Cluster::in_memory(1, &rules).await;
    let address = cluster.nodes[0].address;
    let strange = ("origin", "https://evil.example");
    let with = |extra: &[(&'static str, &'static str)]| [http::UPGRADE, extra].concat();
    let refusals = [
        ("/", with(&[strange]), 403),
        ("/peerjs?key=peerjs&id=a&token=t", with(&[strange]), 403),
        ("/v1/whoami", vec![strange], 403),
        ("/elsewhere", vec![("upgrade", "websocket")], 400),
    ];
    let _held = testing::Client::try_connect(address, &[("origin", "https://app.example")]).await;
    let full = ("/", with(&[("origin", "https://app.example")]), 429);
    for (path, headers, status) in refusals.into_iter().chain([full]) {
        let answer = http::get_with(address, path, &headers).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
}

/// A page at a name of its owner's choice, which then points to this node, reads what the node answers under that name.
#[tokio::test]
async fn the_admin_listener_answers_for_its_own_names_only() {
    let settings = [("admin.hosts", "ops.example.com, node-1.example.com")];
    let cluster = Cluster::in_memory(1, &settings).await;
    let admin = cluster.nodes[0].admin;
    for path in ["/livez", "/readyz", "/status", "/metrics", "/elsewhere"] {
        let usual = http::status(admin, path).await;
        for (host, is_answered) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9091", true),
            ("[::1]:9091", true),
            ("localhost", true),
            ("switchboard", true),
            ("sb-0.switchboard.default.svc.cluster.local:9091", true),
            ("ops.example.com:9091", true),
            ("Node-1.Example.Com", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:9091", false),
            ("localhost.evil.example", false),
            ("ops.example.com.evil.example", false),
        ] {
            let answer = http::request_as(admin, host, path).await;
            let expected = if is_answered { usual } else { Some(421) };
            assert_eq!(Some(answer.status), expected, "{host} {path}");
            if !is_answered {
                assert!(answer.body.contains("admin.hosts"), "{}", answer.body);
            }
        }
    }
}
