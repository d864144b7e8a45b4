//! What a browser finds at a node: pages, the client library, and how the node sees it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http;

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

/// The status, the headers in lower case, and the body.
async fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String, String) {
    let answer = http::get(address, path, headers).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
}

#[tokio::test]
async fn a_browser_gets_a_page_and_a_program_gets_words() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    for (accept, is_page) in [
        (BROWSER, true),
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: text/html;q=0.1, text/plain\r\n", false),
    ] {
        let (status, head, body) = get(address, "/", accept).await;
        assert_eq!(status, 200);
        assert_eq!(body.starts_with("<!doctype html>"), is_page, "{accept}");
        assert_eq!(head.contains("content-type: text/html"), is_page, "{head}");
        assert_eq!(header(&head, "vary").as_deref(), Some("accept"));
    }
}

#[tokio::test]
async fn pages_consist_of_what_the_node_has_and_may_do_nothing_else() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    for page in ["/", "/doctor"] {
        let (status, head, body) = get(address, page, BROWSER).await;
        assert_eq!(status, 200);
        let policy = header(&head, "content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for strict in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(strict), "{page}: {head}");
        }
        // Everything that it names is here.
        let mut parts = 0;
        for attribute in ["src=\"", "href=\""] {
            for part in body.split(attribute).skip(1) {
                let path = part.split('"').next().unwrap();
                assert!(!path.contains("//"), "{page} asks elsewhere: {path}");
                if path.starts_with("/page/") || path.starts_with("/client/") {
                    assert_eq!(get(address, path, "").await.0, 200, "{path}");
                    parts += 1;
                }
            }
        }
        assert!(parts >= 2, "a style and a script at least: {parts}");
    }
}

#[tokio::test]
async fn without_pages_there_are_words_and_the_library() {
    let cluster = Cluster::embedded(1, &[("pages.enabled", "false")]).await;
    let address = cluster.nodes[0].address;
    let (status, head, body) = get(address, "/", BROWSER).await;
    assert_eq!(status, 200);
    assert!(head.contains("text/plain") && body.contains("WebSocket"));
    for gone in ["/doctor", "/page/page.css", "/page/page.js"] {
        assert_eq!(get(address, gone, BROWSER).await.0, 404, "{gone}");
    }
    assert_eq!(get(address, "/client/switchboard.js", "").await.0, 200);
    assert_eq!(get(address, "/v1/whoami", "").await.0, 200);
}

#[tokio::test]
async fn the_library_can_be_imported_from_anywhere_and_kept() {
    let cluster = Cluster::embedded(1, &[("limits.origins", "https://app.example")]).await;
    let address = cluster.nodes[0].address;
    for (file, kind) in [
        ("switchboard.js", "text/javascript"),
        ("switchboard.d.ts", "application/typescript"),
    ] {
        let path = format!("/client/{file}");
        let origin = "Origin: https://elsewhere.example\r\n";
        let (status, head, body) = get(address, &path, origin).await;
        assert_eq!(status, 200);
        if file == "switchboard.js" {
            // Its modules, in one: it needs no other.
            assert!(!body.contains("import "), "{body}");
            assert!(body.contains("\nclass Client extends Session {\n"));
            let exported = body.lines().last().unwrap();
            assert!(exported.starts_with("export {") && exported.contains(" Client, connect,"));
        } else {
            let types = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("client")
                .join(file);
            assert_eq!(body, std::fs::read_to_string(types).unwrap());
        }
        let said = header(&head, "content-type").unwrap();
        assert!(said.starts_with(kind), "{said}");
        for expected in [
            "access-control-allow-origin: *",
            "cross-origin-resource-policy: cross-origin",
            "cache-control: no-cache",
        ] {
            assert!(head.contains(expected), "{expected} is not in {head}");
        }
        // Known by its tag, strong or weak, alone or among others.
        let tag = header(&head, "etag").unwrap();
        for known in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let asked = format!("If-None-Match: {known}\r\n");
            let (status, head, body) = get(address, &path, &asked).await;
            assert_eq!((status, body.as_str()), (304, ""), "{known}");
            assert_eq!(header(&head, "etag").as_ref(), Some(&tag));
        }
        let other = "If-None-Match: \"0123456789abcdef\"\r\n";
        assert_eq!(get(address, &path, other).await.0, 200);
        // For ever, if it is of this version.
        let caching = async |version: &str| {
            let (status, head, _) = get(address, &format!("{path}?v={version}"), "").await;
            assert_eq!(status, 200);
            header(&head, "cache-control").unwrap()
        };
        let own = caching(env!("CARGO_PKG_VERSION")).await;
        assert!(own.contains("immutable"), "{own}");
        assert_eq!(caching("99.0.0").await, "no-cache", "of another node");
    }
}

#[test]
fn the_library_has_the_version_that_caches_know_it_by() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("client");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let said = format!("export const version = '{version}'");
    assert!(read("src/version.js").contains(&said), "{said}");
    let package: Value = serde_json::from_str(&read("package.json")).unwrap();
    assert_eq!(package["version"], version);
}

#[tokio::test]
async fn a_node_tells_how_it_sees_a_client_and_no_secret() {
    let cluster = Cluster::embedded(1, &[]).await;
    let node = &cluster.nodes[0];
    let asked = "User-Agent: Test/1\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.0.0.1\r\n\
                 X-Forwarded-Proto: https\r\nAuthorization: Bearer s3cret\r\nCookie: id=s3cret\r\n";
    let (status, head, body) = get(node.address, "/v1/whoami", asked).await;
    assert_eq!(status, 200);
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(!body.contains("s3cret"), "{body}");
    let seen: Value = serde_json::from_str(&body).unwrap();
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
