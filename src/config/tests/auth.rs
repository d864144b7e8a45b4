//! Tokens.

use super::*;
use crate::auth::Mode;

const SECRET: (&str, &str) = (
    "SWITCHBOARD_AUTH__JWT__HMAC_SECRET",
    "hunter2 and some more words than two",
);
const MODE: &str = "SWITCHBOARD_AUTH__MODE";
const URL: &str = "SWITCHBOARD_AUTH__JWT__JWKS_URL";

#[test]
fn names_are_first_come_unless_tokens_are_asked_for() {
    assert_eq!(load(&[]).unwrap().0.auth.mode, Mode::Open);
    let (config, effective) = load(&[
        (MODE, "Required"),
        SECRET,
        ("SWITCHBOARD_AUTH__JWT__AUDIENCE", "calls, other"),
    ])
    .unwrap();
    assert_eq!(config.auth.mode, Mode::Required);
    assert_eq!(config.auth.audience, ["calls", "other"]);
    assert_eq!(config.auth.sources.len(), 1);
    assert!(!effective.contains("hunter2"), "{effective}");
    assert!(!format!("{config:?}").contains("hunter2"));
    let from_url = [(MODE, "optional"), (URL, "https://id.example.org/keys")];
    assert!(load(&from_url).unwrap().0.auth.jwks_url.is_some());
}

#[test]
fn what_would_protect_nothing_is_refused() {
    for (settings, what) in [
        (&[(MODE, "required")][..], "needs keys"),
        (&[(MODE, "optional")], "needs keys"),
        (&[SECRET], "does not check tokens"),
        (&[(URL, "https://id.example.org/")], "does not check tokens"),
        (
            &[(MODE, "required"), (SECRET.0, "hunter2")],
            "is shorter than 32 bytes",
        ),
        (
            &[
                (MODE, "required"),
                ("SWITCHBOARD_AUTH__JWT__KEYS", "/nowhere/key.pem"),
            ],
            "cannot read \"/nowhere/key.pem\"",
        ),
        (
            &[
                (MODE, "required"),
                ("SWITCHBOARD_AUTH__JWT__HMAC_SECRET_FILE", "/nowhere/s"),
            ],
            "cannot read \"/nowhere/s\"",
        ),
    ] {
        let mistakes = mistakes(settings);
        assert!(mistakes.contains(what), "{settings:?}: {mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

#[test]
fn keys_come_over_tls_or_from_this_machine() {
    for (url, fits) in [
        ("https://id.example.org/keys", true),
        ("http://127.0.0.1:8080/keys", true),
        ("http://[::1]/keys", true),
        ("http://localhost/keys", true),
        ("http://id.example.org/keys", false),
        ("http://127.0.0.1.example.org/keys", false),
        ("file:///etc/passwd", false),
        ("id.example.org", false),
    ] {
        let loaded = load(&[(MODE, "required"), (URL, url)]);
        assert_eq!(loaded.is_ok(), fits, "{url}");
    }
}
