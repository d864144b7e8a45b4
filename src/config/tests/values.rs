//! What operators write, and what is made of it.

use super::*;

/// What is in effect for each of these values of a setting.
fn taken(key: &str, values: &[(&str, &str)]) {
    let variable = variable_of(key);
    for (written, expected) in values {
        match load(&[(&variable, written)]) {
            Ok((_, effective)) => assert_eq!(shown(&effective, key), *expected, "{written}"),
            Err(mistakes) => panic!("{written}: {mistakes}"),
        }
    }
}

/// Values that are refused, and what the refusal says.
fn refused(key: &str, values: &[(&str, &str)]) {
    let variable = variable_of(key);
    for (written, expected) in values {
        let mistakes = mistakes(&[(&variable, written)]);
        assert!(
            mistakes.contains(&format!("(from {variable})")),
            "{mistakes}"
        );
        assert!(
            mistakes.contains(expected),
            "{written}: {expected} is not in:\n{mistakes}"
        );
    }
}

#[test]
fn addresses() {
    for key in ["listen", "admin.listen"] {
        taken(
            key,
            &[
                ("127.0.0.1:80", "\"127.0.0.1:80\""),
                (":9090", "\"0.0.0.0:9090\""),
                ("*:9090", "\"0.0.0.0:9090\""),
                ("9090", "\"0.0.0.0:9090\""),
                ("localhost:9090", "\"127.0.0.1:9090\""),
                ("LOCALHOST:0", "\"127.0.0.1:0\""),
                ("[::]:9090", "\"[::]:9090\""),
                (" 10.0.0.1:9090\n", "\"10.0.0.1:9090\""),
            ],
        );
        refused(
            key,
            &[
                ("0.0.0.0", "such as 0.0.0.0:9090"),
                ("10.0.0.1", "such as 10.0.0.1:9090"),
                ("::", "such as [::]:9090"),
                ("[::1]", "such as [::1]:9090"),
                ("http://0.0.0.0:9090", "write 0.0.0.0:9090"),
                ("tcp://:9090/", "write 0.0.0.0:9090"),
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
fn truth_values() {
    for key in [
        "pages.enabled",
        "peerjs.enabled",
        "peerjs.leave",
        "peerjs.strict_key",
        "peerjs.allow_discovery",
    ] {
        for (written, expected) in [
            ("true 1 yes on TRUE Yes ON", "true"),
            ("false 0 no off False NO oFF", "false"),
        ] {
            let words: Vec<_> = written.split(' ').map(|word| (word, expected)).collect();
            taken(key, &words);
        }
        refused(
            key,
            &[
                ("y", "yes or no"),
                ("2", "1 or 0"),
                ("enabled", "is not true or false"),
            ],
        );
    }
    let file = file("[pages]\nenabled = 0\n[peerjs]\nenabled = false\nleave = \"on\"\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let config = Config::load(sources).unwrap();
    assert!(!config.pages && config.peerjs.is_none());
}

#[test]
fn durations() {
    taken(
        "session.login_within",
        &[
            ("90s", "\"1m 30s\""),
            ("1m30s", "\"1m 30s\""),
            ("1m 30s", "\"1m 30s\""),
            ("1.5s", "\"1s 500ms\""),
            ("2min", "\"2m\""),
            ("30 sec", "\"30s\""),
            ("1h", "\"1h\""),
            ("0", "\"0s\""),
            ("0s", "\"0s\""),
        ],
    );
    refused(
        "session.login_within",
        &[
            ("30", "it has no unit: write 30s or 30ms"),
            ("30S", "write 30s"),
            ("5M", "write 5m for minutes"),
            ("2 Hours", "write 2 hours"),
            ("-5s", "is not a duration such as 30s or 500ms"),
            ("soon", "is not a duration such as 30s or 500ms"),
            ("30s!", "is not a duration such as 30s or 500ms"),
            ("2years", "is longer than a year"),
            ("18446744073709551615s", "is longer than a year"),
            ("1500us", "is not in whole milliseconds"),
        ],
    );
    // No sum of them overflows.
    refused(
        "presence.grace",
        &[("500000000years", "is longer than a year")],
    );
    let file = file("[presence]\nttl = 30\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let mistakes = Config::load(sources).unwrap_err().to_string();
    assert!(
        mistakes.contains("presence.ttl = 30 (from ") && mistakes.contains("write 30s"),
        "{mistakes}"
    );
}

#[test]
fn sizes_and_numbers() {
    for key in ["session.frame_bytes", "session.mailbox_bytes"] {
        taken(
            key,
            &[
                ("131072", "131072"),
                ("131_072", "131072"),
                ("128KiB", "131072"),
                ("128 kib", "131072"),
                ("128Ki", "131072"),
                ("200kB", "200000"),
                ("0.5MiB", "524288"),
            ],
        );
        refused(
            key,
            &[
                ("-1", "is not a size such as 65536, 64KiB or 1MB"),
                ("64KiBs", "is not a size"),
                ("large", "is not a size"),
                ("99999999999999999999", "is not a size"),
            ],
        );
    }
    taken(
        "limits.signals_per_second",
        &[("1_000", "1000"), ("0", "0")],
    );
    refused(
        "limits.signals_per_second",
        &[
            ("-1", "is not a number; 0 for no limit"),
            ("unlimited", "is not a number; 0 for no limit"),
            ("1.5", "is not a number"),
            ("4294967296", "is not a number"),
        ],
    );
}

#[test]
fn words_and_log_levels() {
    taken(
        "log.format",
        &[("JSON", "\"json\""), ("Human", "\"human\"")],
    );
    taken("redis.mode", &[("Standalone", "\"standalone\"")]);
    refused("log.format", &[("text", "is not one of auto, human, json")]);
    taken(
        "log.level",
        &[
            ("INFO", "\"info\""),
            ("warning", "\"warn\""),
            ("Off", "\"off\""),
            (
                "info,switchboard::router=debug",
                "\"info,switchboard::router=debug\"",
            ),
            ("info, Warning", "\"info,warn\""),
        ],
    );
    refused(
        "log.level",
        &[
            (
                "verbose",
                "which is not a level: use error, warn, info, debug or trace",
            ),
            ("info,router", "write modules as router=debug"),
            ("switchboard=loud", "is not a log filter"),
            ("3.5", "is not a level"),
        ],
    );
}

#[test]
fn a_node_may_be_called_like_any_pod() {
    let longest = format!("{}0", "switchboard.".repeat(21));
    assert_eq!(longest.len(), 253);
    for name in ["switchboard-7d9f8b6c5-x2x4z", "0", &longest] {
        let (config, _) = load(&[("SWITCHBOARD_NODE_ID", name)]).unwrap();
        assert_eq!(config.node_id, name);
    }
    refused(
        "node_id",
        &[
            (&format!("{longest}0"), "must have 1 to 253"),
            ("a b", "must have"),
            ("a/b", "must have"),
        ],
    );
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
fn redis_urls() {
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
