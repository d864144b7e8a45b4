//! ICE servers.

use super::*;

/// The ICE servers as `switchboard config check` prints them.
fn ice_servers(text: &str) -> String {
    let (config, effective) = load(&[
        ("SWITCHBOARD_ICE__SERVERS", text),
        ("SWITCHBOARD_ICE__TURN_SECRET", "hunter2"),
    ])
    .unwrap();
    assert!(!format!("{config:?}{effective}").contains("hunter2"));
    shown(&effective, "ice.servers").to_owned()
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

    let file =
        file("[ice]\nturn_secret = \"007\"\n[[ice.servers]]\nurls = [\"stun:b\", \"turn:b\"]\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let (effective, config) = Config::check(sources);
    let config = config.unwrap();
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
        let servers = config.ice.servers_for(&user, true).servers;
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
        ("turn:user:hunter2@a.example:3478", "has an invalid port"),
        ("turn://user:hunter2@a.example", "has no valid host"),
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
