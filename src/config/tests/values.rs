//! What operators write, and what is made of it.

use super::*;

/// What is in effect for each of these values of a setting.
pub(super) fn taken(key: &str, values: &[(&str, &str)]) {
    let variable = variable_of(key);
    for (written, expected) in values {
        match load(&[(&variable, written)]) {
            Ok((_, effective)) => assert_eq!(shown(&effective, key), *expected, "{written}"),
            Err(mistakes) => panic!("{written}: {mistakes}"),
        }
    }
}

/// Values that are refused, and what the refusal says.
pub(super) fn refused(key: &str, values: &[(&str, &str)]) {
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
fn what_is_printed_can_be_given_back() {
    let written = "a\u{7f}\u{200b}\"\\'\u{e9}";
    let (_, effective) = load(&[("SWITCHBOARD_REDIS__PREFIX", written)]).unwrap();
    let printed = shown(&effective, "redis.prefix");
    assert_eq!(printed, r#""a\U0000007F\U0000200B\"\\'é""#);
    let file = file(&format!("redis.prefix = {printed}\n"));
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    assert_eq!(shown(&Config::check(sources).0, "redis.prefix"), printed);
}
