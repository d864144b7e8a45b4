//! Pages, the client library, and `/v1/whoami`.

use std::net::SocketAddr;

use serde_json::Value;

use testing::Cluster;
use testing::http::{self, Response};

const BROWSER: &[(&str, &str)] = &[(
    "accept",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
)];

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    http::get_with(address, path, headers).await.unwrap()
}

#[tokio::test]
async fn a_browser_gets_html_and_a_program_gets_text() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    for (accept, is_page) in [
        (BROWSER, true),
        (&[], false),
        (&[("accept", "*/*")], false),
        (&[("accept", "text/html;q=0.1, text/plain")], false),
    ] {
        let response = get(address, "/", accept).await;
        assert_eq!(response.status, 200);
        let is_html = response.body.starts_with("<!doctype html>");
        assert_eq!(is_html, is_page, "{accept:?}");
        let is_html = response.header("content-type").starts_with("text/html");
        assert_eq!(is_html, is_page, "{response:?}");
        assert_eq!(response.header("vary").to_lowercase(), "accept");
    }
}

#[tokio::test]
async fn pages_load_only_resources_of_the_node() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    for page in ["/", "/doctor"] {
        let response = get(address, page, BROWSER).await;
        assert_eq!(response.status, 200);
        let policy = response.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(response.header(name), value, "{page}: {name}");
        }
        // The node serves everything that the page refers to.
        let mut parts = 0;
        for attribute in ["src=\"", "href=\""] {
            for part in response.body.split(attribute).skip(1) {
                let path = part.split('"').next().unwrap();
                assert!(!path.contains("//"), "{page} asks elsewhere: {path}");
                if path.starts_with("/page/") || path.starts_with("/client/") {
                    assert_eq!(get(address, path, &[]).await.status, 200, "{path}");
                    parts += 1;
                }
            }
        }
        assert!(parts >= 2, "a style and a script at least: {parts}");
    }
}

#[tokio::test]
async fn without_pages_text_and_library_remain() {
    let cluster = Cluster::in_memory(1, &[("pages.enabled", "false")]).await;
    let address = cluster.nodes[0].address;
    let response = get(address, "/", BROWSER).await;
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").starts_with("text/plain"));
    assert!(response.body.contains("WebSocket"));
    for gone in ["/doctor", "/page/page.css", "/page/page.js"] {
        assert_eq!(get(address, gone, BROWSER).await.status, 404, "{gone}");
    }
    for there in ["/client/switchboard.js", "/v1/whoami"] {
        assert_eq!(get(address, there, &[]).await.status, 200, "{there}");
    }
}

#[tokio::test]
async fn the_library_can_be_imported_cross_origin_and_cached() {
    let cluster = Cluster::in_memory(1, &[("limits.origins", "https://app.example")]).await;
    let address = cluster.nodes[0].address;
    for (file, kind) in [
        ("switchboard.js", "text/javascript"),
        ("switchboard.d.ts", "application/typescript"),
    ] {
        let path = format!("/client/{file}");
        let origin = [("origin", "https://elsewhere.example")];
        let response = get(address, &path, &origin).await;
        assert_eq!(response.status, 200);
        if kind == "text/javascript" {
            // Its modules, joined: it needs no other file.
            assert!(!response.body.contains("import "), "{}", response.body);
            assert!(response.body.contains("\nclass Client extends Session {\n"));
            let exported = response.body.lines().last().unwrap();
            assert!(exported.starts_with("export {") && exported.contains(" Client, connect,"));
        } else {
            let types = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("client");
            let expected = std::fs::read_to_string(types.join(file)).unwrap();
            assert_eq!(response.body, expected);
        }
        assert!(response.header("content-type").starts_with(kind));
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(response.header(name), value, "{name}");
        }
        // A 304 for its tag, strong or weak, alone or in a list.
        let tag = response.header("etag").to_owned();
        for known in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let headers = [("if-none-match", known.as_str())];
            let response = get(address, &path, &headers).await;
            assert_eq!(response.status, 304, "{known}");
            assert_eq!(response.body, "", "{known}");
            assert_eq!(response.header("etag"), tag);
        }
        let other = [("if-none-match", "\"0123456789abcdef\"")];
        assert_eq!(get(address, &path, &other).await.status, 200);
        // A URL with the node's own version may be cached for ever.
        let caching = async |version: &str| {
            let response = get(address, &format!("{path}?v={version}"), &[]).await;
            assert_eq!(response.status, 200);
            response.header("cache-control").to_owned()
        };
        let own = caching(env!("CARGO_PKG_VERSION")).await;
        assert!(own.contains("immutable"), "{own}");
        assert_eq!(caching("99.0.0").await, "no-cache", "of another node");
    }
}

#[test]
fn the_library_has_the_version_of_the_server() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("client");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let said = format!("export const version = '{version}'");
    assert!(read("src/version.js").contains(&said), "{said}");
    let package: Value = serde_json::from_str(&read("package.json")).unwrap();
    assert_eq!(package["version"], version);
}

#[tokio::test]
async fn whoami_describes_the_request_without_secrets() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let node = &cluster.nodes[0];
    let headers = [
        ("user-agent", "Test/1"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("authorization", "Bearer s3cret"),
        ("cookie", "id=s3cret"),
    ];
    let response = get(node.address, "/v1/whoami", &headers).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("cache-control"), "no-store");
    assert!(!response.body.contains("s3cret"), "{}", response.body);
    let seen = response.json();
    assert_eq!(seen["node"], node.id.as_str());
    assert_eq!(seen["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(seen["address"], "127.0.0.1");
    assert!(seen["port"].as_u64().unwrap() > 0);
    assert_eq!(seen["scheme"], "http");
    assert_eq!(seen["http_version"], "1.1");
    assert_eq!(seen["host"], node.address.to_string());
    assert_eq!(seen["user_agent"], "Test/1");
    assert_eq!(seen["forwarded_for"], "192.0.2.7, 10.0.0.1");
    assert_eq!(seen["forwarded_proto"], "https");
    assert_eq!(seen.get("origin"), None);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let apart = seen["time"]
        .as_u64()
        .unwrap()
        .abs_diff(clock.unwrap().as_secs());
    assert!(apart <= 60, "{seen}");
}
