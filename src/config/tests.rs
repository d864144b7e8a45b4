use super::names::variable_of;
use super::*;

mod auth;
mod ice;
mod naming;
mod otel;
mod places;
mod values;

fn sources(environment: &[(&str, &str)]) -> Sources {
    let environment = environment
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Sources {
        environment,
        ..Sources::default()
    }
}

/// The configuration, and the effective settings as they are printed.
fn load(environment: &[(&str, &str)]) -> Result<(Config, String), Mistakes> {
    let (effective, config) = Config::check(sources(environment));
    config.map(|config| (config, effective))
}

/// The mistakes in settings that are refused.
fn mistakes(environment: &[(&str, &str)]) -> String {
    match load(environment) {
        Ok(_) => panic!("not refused: {environment:?}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// What is printed for a setting, without where it comes from.
fn shown<'a>(effective: &'a str, key: &str) -> &'a str {
    let start = format!("{key} = ");
    let line = effective.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap().rsplit_once("  # ").unwrap().0.trim_end()
}

#[test]
fn the_defaults_are_a_standalone_node() {
    let (config, effective) = load(&[]).unwrap();
    assert!(matches!(config.backend, Backend::Embedded));
    assert_eq!(config.listen, "[::]:9090".parse().unwrap());
    assert_eq!(config.drain_deadline, Duration::from_secs(20));
    assert_eq!(shown(&effective, "presence.ttl"), "\"50s\"");
}

#[test]
fn later_layers_win() {
    let file = file("node_id = \"file\"\n[presence]\nttl = \"60s\"\ngrace = \"1s\"\n");
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
    let (effective, config) = Config::check(sources);
    let config = config.unwrap();
    let line = |start: &str| effective.lines().find(|line| line.starts_with(start));
    for (start, origin) in [
        ("node_id = \"flag\" ", "  # the command line"),
        (
            "presence.grace = \"2s\" ",
            "  # SWITCHBOARD_PRESENCE__GRACE",
        ),
        ("presence.ttl = \"1m\" ", ".toml"),
        ("presence.node_ttl = \"5s\" ", "  # default"),
    ] {
        let line = line(start).unwrap_or_else(|| panic!("{start} is not in:\n{effective}"));
        assert!(line.ends_with(origin), "{line}");
    }
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
fn lists_are_comma_separated_or_toml() {
    let (config, _) = load(&[(
        "SWITCHBOARD_LIMITS__ORIGINS",
        "https://a.example, https://b.example",
    )])
    .unwrap();
    assert_eq!(
        config.limits.origins.as_slice(),
        ["https://a.example", "https://b.example"]
    );
    let (config, _) = load(&[("SWITCHBOARD_LIMITS__ORIGINS", "[\"https://a.example\"]")]).unwrap();
    assert_eq!(config.limits.origins.as_slice(), ["https://a.example"]);
    assert!(load(&[("SWITCHBOARD_LIMITS__ORIGINS", "[https://a.example")]).is_err());
}

#[test]
fn mistakes_of_all_layers_are_reported_at_once_and_the_settings_are_printed() {
    let file = file("workers = \"many\"\n[redis\n");
    let mut sources = sources(&[("SWITCHBOARD_LISTEN", "nowhere")]);
    sources.file = Some(file.path().to_owned());
    sources.flags = vec![
        ("log.format".to_owned(), "xml".to_owned()),
        ("log.colour".to_owned(), "red".to_owned()),
    ];
    let (effective, config) = Config::check(sources);
    let mistakes = config.unwrap_err().to_string();
    for expected in [
        "4 mistake(s)",
        ".toml is not valid TOML: ",
        "at line 2",
        "listen = \"nowhere\" (from SWITCHBOARD_LISTEN) is not",
        "log.format = \"xml\" (from the command line) is not one of auto, human, json",
        "--set log.colour is not a setting",
    ] {
        assert!(
            mistakes.contains(expected),
            "{expected} is not in:\n{mistakes}"
        );
    }
    assert_eq!(shown(&effective, "presence.ttl"), "\"50s\"");
    let absent = Sources {
        file: Some("/no/such/file.toml".into()),
        flags: vec![("listen".to_owned(), "nowhere".to_owned())],
        ..Sources::default()
    };
    let mistakes = Config::load(absent).unwrap_err().to_string();
    assert!(mistakes.contains("2 mistake(s)"), "{mistakes}");
    assert!(
        mistakes.contains("cannot read the file /no/such/file.toml: "),
        "{mistakes}"
    );
}

/// Every setting can be given by its own default, in each of the three places, and is printed with its origin.
#[test]
fn every_setting_can_be_set_everywhere() {
    let (effective, _) = Config::check(Sources::default());
    let settings: Vec<(&str, &str)> = effective
        .lines()
        .map(|line| (line.split_once(" = ").unwrap().0, line))
        .map(|(key, _)| (key, shown(&effective, key)))
        .filter(|(_, value)| !["\"\"", "[]"].contains(value))
        .collect();
    assert!(settings.len() > 35, "{effective}");
    let of = |sources: Sources, origin: &str| {
        let (effective, config) = Config::check(sources);
        config.unwrap();
        for (key, value) in &settings {
            assert_eq!(shown(&effective, key), *value);
        }
        let lines = effective.lines().filter(|line| line.contains(origin));
        assert_eq!(lines.count(), settings.len(), "{effective}");
    };
    let lines: Vec<String> = settings
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let file = file(&lines.join("\n"));
    of(
        Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        },
        ".toml",
    );
    let unquoted = |value: &str| value.trim_matches('"').to_owned();
    let pairs = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), unquoted(value)));
    of(
        Sources {
            flags: pairs.clone().collect(),
            ..Sources::default()
        },
        "  # the command line",
    );
    let environment = pairs.map(|(key, value)| (variable_of(&key), value));
    of(
        Sources {
            environment: environment.collect(),
            ..Sources::default()
        },
        "  # SWITCHBOARD_",
    );
}
