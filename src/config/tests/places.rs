//! Addresses, origins and URLs.

use super::values::{refused, taken};
use super::*;

#[test]
fn addresses() {
    for key in ["listen", "admin.listen"] {
        taken(
            key,
            &[
                ("127.0.0.1:80", "\"127.0.0.1:80\""),
                (":9090", "\"[::]:9090\""),
                ("*:9090", "\"[::]:9090\""),
                ("9090", "\"[::]:9090\""),
                ("localhost:9090", "\"127.0.0.1:9090\""),
                ("LOCALHOST:0", "\"127.0.0.1:0\""),
                ("[::]:9090", "\"[::]:9090\""),
                (" 10.0.0.1:9090\n", "\"10.0.0.1:9090\""),
            ],
        );
        refused(
            key,
            &[
                ("0.0.0.0", "write 0.0.0.0:9090"),
                ("10.0.0.1", "write 10.0.0.1:9090"),
                ("::", "such as [::]:9090"),
                ("[::1]", "such as [::1]:9090"),
                ("http://0.0.0.0:9090", "write 0.0.0.0:9090"),
                ("tcp://:9090/", "write [::]:9090"),
                ("example.org:9090", "an IP address of this machine"),
                ("localhost", "an IP address of this machine"),
                ("*:http", "an IP address of this machine"),
                (":+9090", "an IP address of this machine"),
                (":70000", "an IP address of this machine"),
                ("0.0.0.0:", "an IP address of this machine"),
            ],
        );
    }
    let file = file("listen = 9191\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    assert_eq!(Config::load(sources).unwrap().listen.port(), 9191);
}

#[test]
fn origins_are_as_browsers_write_them() {
    taken(
        "limits.origins",
        &[
            ("https://X.org/", "[\"https://x.org\"]"),
            ("x.org, *.y.org", "[\"https://x.org\", \"https://*.y.org\"]"),
            ("*", "[]"),
            ("[\"https://x.org:443\"]", "[\"https://x.org\"]"),
        ],
    );
    refused(
        "limits.origins",
        &[
            (
                "https://x.org/app",
                "is wrong: \"https://x.org/app\" has more than",
            ),
            ("https://x.org,wss://y.org", "write https://y.org"),
            (
                "[https://x.org",
                "is not a list: write [\"a\", \"b\"], or values separated by commas",
            ),
            ("[[\"https://x.org\"]]", "is not a list of texts"),
        ],
    );
    // Each word of the list.
    let mistakes = mistakes(&[("SWITCHBOARD_LIMITS__ORIGINS", "wss://x.org,wss://y.org")]);
    assert!(mistakes.contains("2 mistake(s)"), "{mistakes}");
}

#[test]
fn redis_urls_that_work() {
    for url in [
        "redis://localhost",
        "redis://localhost:6379/2",
        "rediss://redis.example.org:6380",
        "REDIS://localhost",
        "valkey://localhost",
        "unix:///run/redis.sock",
        "redis://[::1]:6379",
        "redis://:pa,ss@localhost",
        "redis://user:a,b,c@localhost:6379",
        "redis://user:p@ss@localhost",
        "redis://user:p:ss@localhost",
        "redis://user:100%25@localhost",
        "redis://user:p%23%2F%3F@localhost",
        "redis://default@localhost",
    ] {
        assert!(load(&[("SWITCHBOARD_REDIS__URL", url)]).is_ok(), "{url}");
    }
}

#[test]
fn redis_urls_that_cannot_work() {
    refused(
        "redis.url",
        &[
            (
                "redis://:p#ss@localhost",
                "percent-encode the password: write # as %23",
            ),
            ("redis://:p/ss@localhost", "write / as %2F"),
            ("redis://:p?ss@localhost", "write ? as %3F"),
            (
                "redis://user:/#?@localhost",
                "write # as %23, / as %2F, ? as %3F",
            ),
            ("redis://:p@s,s@localhost", "write @ as %40"),
            (
                "redis://a,redis://b",
                "sentinel and cluster are not supported yet",
            ),
            (
                "redis://a:1,b:2/0",
                "sentinel and cluster are not supported yet",
            ),
            (
                "redis-sentinel://a:26379",
                "sentinel and cluster are not supported yet",
            ),
            ("localhost:6379", "write redis://HOST:6379"),
            ("http://localhost", "must begin with redis://"),
            ("redis://", "has no host"),
            ("redis://:secret@", "has no host"),
            ("redis://:6379", "has no host"),
            (
                "redis://localhost:secret",
                "a password is written before the host",
            ),
            ("redis://localhost:0", "from 1 to 65535"),
            (
                "redis://secret@localhost",
                "has a user name and no password",
            ),
            ("redis://localhost/mine", "is not the number of a database"),
        ],
    );
}
