//! Revokes tokens: in the store first, then at every node.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::super::node_view::NodeView;
use super::super::reject::Rejection;
use super::wire::{Ask, Reply, Revocations, Revoke, Revoked, time};
use crate::model::{CLOCK_SKEW, Realm, Revocation, TokenGroup};

/// How long the longest token lasts, if the request does not say, and at most.
const KEPT: Duration = Duration::from_hours(30 * 24);
const LONGEST_KEPT: Duration = Duration::from_hours(366 * 24);
/// The longest `sub`, `jti` or `realm`.
const LONGEST: usize = 1024;

impl Revoke {
    /// What the request revokes, at a time in Unix seconds.
    pub(super) fn read(&self, now: u64) -> Result<Revocation, Rejection> {
        let fits = |text: &&String| (1..=LONGEST).contains(&text.chars().count());
        let texts = [&self.sub, &self.jti];
        let realm = self.realm.as_deref();
        if !texts.into_iter().flatten().all(|text| fits(&text))
            || realm.is_some_and(|realm| realm.chars().count() > LONGEST)
        {
            return Err(Rejection::Bad(
                "sub, jti and realm have at most 1024 characters",
            ));
        }
        let kept = self.for_seconds.unwrap_or(KEPT.as_secs());
        if !(1..=LONGEST_KEPT.as_secs()).contains(&kept) {
            return Err(Rejection::Bad("for_seconds must be from 1 to 31622400"));
        }
        let realm = realm.map(Realm::new);
        let realm = realm.as_ref();
        // Tokens name whole seconds, and one of this second may have been issued already.
        let until_now = now + 1;
        let before = self.issued_before.unwrap_or(until_now).min(until_now);
        let until = now + kept + CLOCK_SKEW.as_secs();
        let (tokens, issued_before) = match (&self.sub, &self.jti, self.issued_before) {
            (Some(sub), None, _) => (TokenGroup::of_subject(realm, sub), before),
            // Whenever it was issued.
            (None, Some(id), None) => (TokenGroup::of_id(realm, id), until),
            (None, None, Some(_)) => (TokenGroup::all(realm), before),
            _ => {
                return Err(Rejection::Bad(
                    "Name sub (and issued_before, if not now), or jti alone, or issued_before alone",
                ));
            }
        };
        Ok(Revocation {
            tokens,
            issued_before,
            until,
        })
    }

    /// For the audit log.
    pub(super) fn subject(&self) -> String {
        let mut words = Vec::new();
        let texts = [
            ("realm", &self.realm),
            ("sub", &self.sub),
            ("jti", &self.jti),
        ];
        for (name, text) in texts {
            words.extend(text.as_ref().map(|text| format!("{name}={text:?}")));
        }
        words.extend(
            self.issued_before
                .map(|before| format!("issued_before={before}")),
        );
        words.join(" ")
    }
}

impl NodeView {
    /// Revokes tokens at every node, and at those that start later.
    pub(super) async fn revoke(&self, revocation: Revocation) -> Result<Revocations, Rejection> {
        let stored = self.broker().revoke(std::slice::from_ref(&revocation));
        if !stored.await? {
            return Err(Rejection::TooManyRevocations);
        }
        let revoked = Revoked::of(&revocation);
        let asked = self.members().await?.into_iter().map(async |node| {
            let reply = self.ask(&node, Ask::Revoke(revoked.clone())).await;
            (node, reply)
        });
        let mut done = Revocations {
            revoked: true,
            sessions: 0,
            until: time(SystemTime::UNIX_EPOCH + Duration::from_secs(revocation.until)),
            unanswered: Vec::new(),
        };
        // All at once: one that does not answer holds back no other.
        for (node, reply) in join_all(asked).await {
            match reply {
                Some(Reply::Revoked(sessions)) => done.sessions += sessions,
                _ => done.unanswered.push(node.to_string()),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Revocation> {
        let revoke: Revoke = super::super::wire::read(text.as_bytes())?;
        revoke.read(1000).ok()
    }

    #[test]
    fn a_request_names_tokens() {
        let sub = read(r#"{"sub":"alice"}"#).unwrap();
        assert_eq!(sub.tokens, TokenGroup::of_subject(None, "alice"));
        assert_eq!((sub.issued_before, sub.until), (1001, 1030 + 30 * 86400));
        let jti = read(r#"{"jti":"7","realm":"acme","for_seconds":60}"#).unwrap();
        let acme = Realm::new("acme");
        assert_eq!(jti.tokens, TokenGroup::of_id(Some(&acme), "7"));
        assert_eq!((jti.issued_before, jti.until), (1090, 1090));
        let all = read(r#"{"issued_before":900}"#).unwrap();
        assert_eq!(
            (all.tokens, all.issued_before),
            (TokenGroup::all(None), 900)
        );
        assert_eq!(read(r#"{"issued_before":9e2}"#).unwrap().issued_before, 900);
        let older = read(r#"{"sub":"alice","issued_before":900}"#).unwrap();
        assert_eq!(older.issued_before, 900);
        let later = read(r#"{"issued_before":9000}"#).unwrap();
        assert_eq!(
            later.issued_before, 1001,
            "whoever is to come is not revoked"
        );
        let long = "x".repeat(1025);
        for wrong in [
            "{}".to_owned(),
            r#"{"realm":"acme"}"#.to_owned(),
            r#"{"sub":"alice","jti":"7"}"#.to_owned(),
            r#"{"jti":"7","issued_before":900}"#.to_owned(),
            r#"{"sub":""}"#.to_owned(),
            r#"{"sub":"alice","jti":null}"#.to_owned(),
            r#"{"issued_before":null}"#.to_owned(),
            r#"{"issued_before":1.5}"#.to_owned(),
            r#"{"issued_before":-1}"#.to_owned(),
            r#"{"sub":"alice","for_seconds":0}"#.to_owned(),
            r#"{"sub":"alice","for_seconds":99999999}"#.to_owned(),
            r#"{"sub":"alice","name":"alice"}"#.to_owned(),
            format!(r#"{{"jti":"{long}"}}"#),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
