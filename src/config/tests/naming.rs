//! Names that are not settings, empty values, and passwords.

use super::*;

#[test]
fn an_unknown_name_is_told_with_the_nearest_known_one() {
    for (variable, meant) in [
        ("SWITCHBOARD_DRAIN__DEADLNE", "SWITCHBOARD_DRAIN__DEADLINE"),
        ("SWITCHBOARD_REDIS_URL", "SWITCHBOARD_REDIS__URL"),
        ("SWITCHBOARD_REDIS__URI", "SWITCHBOARD_REDIS__URL"),
        ("SWITCHBOARD_REDIS", "SWITCHBOARD_REDIS__URL"),
        ("SWITCHBOARD_REDIS_HOST", "SWITCHBOARD_REDIS__URL"),
        ("SWITCHBOARD_LISTEN_", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOARD__LISTEN", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOARD_lisetn", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOARD_listen", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOARD_PORT", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOARD_ORIGINS", "SWITCHBOARD_LIMITS__ORIGINS"),
        (
            "SWITCHBOARD_HTTP__FRAME_BYTES",
            "SWITCHBOARD_SESSION__FRAME_BYTES",
        ),
        ("SWITCHBOARD_LOG_LEVEL", "SWITCHBOARD_LOG__LEVEL"),
        ("SWITCHBORD_LISTEN", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOARDS_REDIS__URL", "SWITCHBOARD_REDIS__URL"),
        ("switchboard_listen", "SWITCHBOARD_LISTEN"),
        ("SWITCHBOÄRD_LISTEN", "SWITCHBOARD_LISTEN"),
    ] {
        let mistakes = mistakes(&[(variable, "9090")]);
        let expected = format!("{variable} is not a setting; did you mean {meant}?");
        assert!(
            mistakes.contains(&expected),
            "{expected} is not in:\n{mistakes}"
        );
    }
    // Nothing is near.
    let mistakes = mistakes(&[("SWITCHBOARD_COLOUR_OF_THE_LOGO", "red")]);
    assert!(mistakes.contains("LOGO is not a setting\n"), "{mistakes}");
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    for (key, meant) in [
        ("presence.ttll", "presence.ttl"),
        ("redis__url", "redis.url"),
        ("SWITCHBOARD_REDIS__URL", "redis.url"),
        ("drain-window", "drain.window"),
        ("turn_secret", "ice.turn_secret"),
        ("session.connections_per_ip", "limits.connections_per_ip"),
    ] {
        let flags = vec![(key.to_owned(), "1".to_owned())];
        let by_flag = Config::load(Sources {
            flags,
            ..Sources::default()
        });
        let expected = format!("--set {key} is not a setting; did you mean {meant}?");
        let mistakes = by_flag.unwrap_err().to_string();
        assert!(
            mistakes.contains(&expected),
            "{expected} is not in:\n{mistakes}"
        );
        let file = file(&format!("{key} = 1\n"));
        let sources = Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        };
        let mistakes = Config::load(sources).unwrap_err().to_string();
        assert!(
            mistakes.contains(&format!("did you mean {meant}?")),
            "{mistakes}"
        );
    }
}

#[test]
fn kubernetes_service_variables_are_ignored() {
    let link = [
        ("SWITCHBOARD_PORT", "tcp://10.0.0.1:9090"),
        ("SWITCHBOARD_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
        ("SWITCHBOARD_PORT_9090_TCP_PORT", "9090"),
        ("SWITCHBOARD_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ("SWITCHBOARD_SERVICE_HOST", "10.0.0.1"),
        ("SWITCHBOARD_SERVICE_PORT", "9090"),
        ("SWITCHBOARD_SERVICE_PORT_CLIENTS", "9090"),
        ("SWITCHBOARD_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("SWITCHBOARD_ADMIN_PORT", "tcp://10.0.0.1:9091"),
        ("SWITCHBOARDS_SERVICE_HOST", "10.0.0.1"),
        ("OTHER_LISTEN", "9090"),
    ];
    assert!(load(&link).is_ok());
}

/// `${NAME:-}` of a compose file.
#[test]
fn an_empty_value_is_unset_everywhere() {
    let (all, _) = Config::check(Sources::default());
    let keys = all
        .lines()
        .map(|line| line.split_once(" = ").unwrap().0.to_owned());
    let keys: Vec<String> = keys.collect();
    for empty in ["", " ", "\n"] {
        let pair = |key: &String| (key.clone(), empty.to_owned());
        let environment = keys.iter().map(|key| (variable_of(key), empty.to_owned()));
        let (effective, config) = Config::check(Sources {
            environment: environment.collect(),
            flags: keys.iter().map(pair).collect(),
            file: None,
        });
        config.unwrap();
        assert_eq!(effective, all);
    }
    let lines: Vec<String> = keys.iter().map(|key| format!("{key} = \"\"")).collect();
    let empty = file(&lines.join("\n"));
    let (effective, config) = Config::check(Sources {
        file: Some(empty.path().to_owned()),
        ..Sources::default()
    });
    config.unwrap();
    assert_eq!(effective, all);
    // The layer below shows through.
    let file = file("node_id = \"file\"\n");
    let mut sources = sources(&[("SWITCHBOARD_NODE_ID", ""), ("OTEL_TRACES_SAMPLER", "")]);
    sources.file = Some(file.path().to_owned());
    assert_eq!(Config::load(sources).unwrap().node_id, "file");
}

#[test]
fn a_value_of_the_environment_that_was_not_unwrapped_is_refused() {
    let text = mistakes(&[
        ("SWITCHBOARD_NODE_ID", "\"one\""),
        ("SWITCHBOARD_ICE__TURN_SECRET", "'hunter2'"),
        ("SWITCHBOARD_REDIS__PREFIX", "caf\u{FFFD}"),
    ]);
    for expected in [
        "3 mistake(s)",
        "node_id (from SWITCHBOARD_NODE_ID) has quotes around its value",
        "ice.turn_secret (from SWITCHBOARD_ICE__TURN_SECRET) has quotes",
        "redis.prefix (from SWITCHBOARD_REDIS__PREFIX) is not valid UTF-8",
    ] {
        assert!(text.contains(expected), "{expected} is not in:\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    // The last line break of a Secret's file is not part of it.
    let (config, _) = load(&[("SWITCHBOARD_NODE_ID", "one\n")]).unwrap();
    assert_eq!(config.node_id, "one");
}

#[test]
fn passwords_of_redis_are_never_printed() {
    const URL: &str = "SWITCHBOARD_REDIS__URL";
    for (url, printed) in [
        (
            "redis://user:hunter2@localhost:6379",
            "\"redis://***@localhost:6379\"",
        ),
        (
            "redis://:hunter2@localhost/1",
            "\"redis://***@localhost/1\"",
        ),
        (
            "redis://:hunter2,@hunter2@localhost",
            "\"redis://***@localhost\"",
        ),
    ] {
        let (config, effective) =
            load(&[(URL, url), ("OTEL_EXPORTER_OTLP_HEADERS", "k=hunter2")]).unwrap();
        assert_eq!(shown(&effective, "redis.url"), printed);
        assert!(
            !format!("{config:?}{effective}").contains("hunter2"),
            "{config:?}{effective}"
        );
    }
    for url in [
        "redis://user:hunter2@a,redis://b",
        "redis://user:hunter2@a:1,user:hunter2@b:2",
        "redis://user:hun/ter2@a",
        "redis://hunter2@a",
        "redis://a:hunter2",
        "user:hunter2@a:6379",
        "http://user:hunter2@a",
        "redis://user:hunter2@a:b",
        "redis://user:hunter2@",
        "redis://user:hunter2@a/hunter2",
    ] {
        let mistakes = mistakes(&[(URL, url)]);
        assert!(
            !mistakes.contains("hunter2") && !mistakes.contains("ter2"),
            "{url}: {mistakes}"
        );
    }
}

#[test]
fn passwords_of_collectors_and_of_broken_files_are_never_printed() {
    let endpoint = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "https://me:hunter2@collector",
    );
    let (_, effective) = load(&[endpoint]).unwrap();
    assert!(!effective.contains("hunter2"), "{effective}");
    let wrong = mistakes(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "me:hunter2@collector")]);
    assert!(!wrong.contains("hunter2"), "{wrong}");
    // The parser of TOML shows the line.
    for text in [
        "[redis]\nurl = redis://:hunter2@localhost\n",
        "[redis]\nurl = \"redis://:hunter2@localhost\n",
        "[ice]\nturn_secret = hunter2\n",
        "[ice]\nturn_secret = 'a'\nturn_secret = 'hunter2'\n",
        "[ice]\nturn_secret = \"\\hunter2\"\n",
        "hunter2\n",
    ] {
        let file = file(text);
        let sources = Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        };
        let mistakes = Config::load(sources).unwrap_err().to_string();
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
        assert!(
            mistakes.contains("is not valid TOML: ") && mistakes.contains("at line "),
            "{mistakes}"
        );
    }
}
