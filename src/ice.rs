//! The ICE servers that clients are told of, with credentials for relays that run out.
//!
//! Relays that share a secret with us take any user name that begins with the time at which it expires, with the HMAC of it as its password:
//! coturn's `use-auth-secret`, after draft-uberti-behave-turn-rest-00, which names SHA-1.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;

use crate::model::{Address, IceLogin, IceServer, IceServers};

/// How many bytes of a user's pseudonym are shown.
const PSEUDONYM_BYTES: usize = 8;

/// The servers, as the operator has set them up.
#[derive(Clone, Debug, Default)]
pub struct Ice {
    servers: Vec<IceServer>,
    relays: Option<Relays>,
}

/// What is agreed with the relays.
#[derive(Clone)]
pub struct Relays {
    /// Known to them and to us.
    pub secret: String,
    /// How long a login is good; whole seconds count.
    pub ttl: Duration,
}

/// Hides the secret.
impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Ice {
    /// These servers; relays among them that come without a login get one for each user.
    pub fn new(servers: Vec<IceServer>, relays: Option<Relays>) -> Self {
        let asks = servers.iter().any(asks_for_login);
        Self {
            servers,
            relays: relays.filter(|_| asks),
        }
    }

    /// What this user may use from now on.
    pub fn servers_for(&self, user: &Address) -> IceServers {
        self.at(SystemTime::now(), user)
    }

    /// When a client should be told anew: half of the time before its logins run out.
    pub fn renewed_after(&self) -> Option<Duration> {
        self.relays.as_ref().map(|relays| relays.ttl / 2)
    }

    fn at(&self, now: SystemTime, user: &Address) -> IceServers {
        let login = self.relays.as_ref().map(|relays| relays.login(now, user));
        let with_login = |server: &IceServer| IceServer {
            urls: server.urls.clone(),
            login: if asks_for_login(server) {
                login.clone()
            } else {
                server.login.clone()
            },
        };
        IceServers {
            servers: self.servers.iter().map(with_login).collect(),
            ttl: self
                .relays
                .as_ref()
                .map(|relays| Duration::from_secs(relays.ttl.as_secs())),
        }
    }
}

impl Relays {
    /// A login for this user. The name shows in the relay's logs, and must not tell who it is; but it is the same for one user, whose relays
    /// may be counted.
    fn login(&self, now: SystemTime, user: &Address) -> IceLogin {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = now.as_secs().saturating_add(self.ttl.as_secs());
        // No relay takes this for a user name: it does not begin with a time.
        let pseudonym = self.sign(&format!("user {user}"));
        let username = format!("{expiry}:{}", hex::encode(&pseudonym[..PSEUDONYM_BYTES]));
        IceLogin {
            credential: STANDARD.encode(self.sign(&username)),
            username,
        }
    }

    fn sign(&self, text: &str) -> [u8; 20] {
        // Keys of any length will do.
        let Ok(mac) = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes()) else {
            unreachable!("HMAC takes every key")
        };
        mac.chain_update(text).finalize().into_bytes().into()
    }
}

/// Whether a server has a relay and no login of its own.
fn asks_for_login(server: &IceServer) -> bool {
    server.login.is_none() && server.urls.iter().any(|url| is_relay(url))
}

/// Whether the URL is that of a relay.
pub fn is_relay(url: &str) -> bool {
    url.starts_with("turn:") || url.starts_with("turns:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Realm, UserName};

    fn user(name: &str) -> Address {
        Address::new(Realm::default(), UserName::parse(name).unwrap())
    }

    fn server(urls: &[&str], login: Option<IceLogin>) -> IceServer {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        IceServer { urls, login }
    }

    fn relays() -> Relays {
        Relays {
            secret: "S".to_owned(),
            ttl: Duration::from_millis(3_600_900),
        }
    }

    const NOW: Duration = Duration::from_millis(1_700_000_000_700);

    #[test]
    fn a_login_is_what_relays_compute_themselves() {
        let login = relays().login(UNIX_EPOCH + NOW, &user("alice"));
        // printf %s '1700003600:3910e1b16ef0ce91' | openssl dgst -sha1 -hmac S -binary | base64
        assert_eq!(login.username, "1700003600:3910e1b16ef0ce91");
        assert_eq!(login.credential, "h9TP3/XQnsJ689XZGNREM/LB4IA=");
    }

    #[test]
    fn a_user_is_known_again_but_not_by_name() {
        let name = |secret: &str, user_name: &str| {
            let relays = Relays {
                secret: secret.to_owned(),
                ..relays()
            };
            relays.login(UNIX_EPOCH + NOW, &user(user_name)).username
        };
        assert_eq!(name("S", "alice"), name("S", "alice"));
        assert_ne!(name("S", "alice"), name("S", "bob"));
        assert_ne!(name("S", "alice"), name("T", "alice"));
        assert!(!name("S", "alice").contains("alice"));
    }

    #[test]
    fn only_relays_without_a_login_get_one() {
        let own = IceLogin {
            username: "u".to_owned(),
            credential: "p".to_owned(),
        };
        let servers = vec![
            server(&["stun:a"], None),
            server(&["stun:b", "turn:b"], None),
            server(&["turns:c"], Some(own.clone())),
        ];
        let ice = Ice::new(servers.clone(), Some(relays()));
        let told = ice.at(UNIX_EPOCH + NOW, &user("alice"));
        assert_eq!(told.ttl, Some(Duration::from_hours(1)));
        assert_eq!(ice.renewed_after(), Some(Duration::from_millis(1_800_450)));
        let logins: Vec<_> = told.servers.iter().map(|server| &server.login).collect();
        assert_eq!(logins[0], &None);
        assert!(matches!(logins[1], Some(login) if login.username.starts_with("1700003600:")));
        assert_eq!(logins[2], &Some(own));

        for ice in [
            Ice::new(servers[..1].to_vec(), Some(relays())),
            Ice::new(servers[2..].to_vec(), Some(relays())),
            Ice::default(),
        ] {
            let told = ice.at(UNIX_EPOCH + NOW, &user("alice"));
            assert_eq!((told.ttl, ice.renewed_after()), (None, None));
            assert_eq!(told.servers, ice.servers);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = relays().login(UNIX_EPOCH + NOW, &user("alice"));
        let shown = format!(
            "{:?} {login:?}",
            Ice::new(
                vec![server(&["turn:a"], None)],
                Some(Relays {
                    secret: "hunter2".to_owned(),
                    ..relays()
                })
            )
        );
        assert!(
            !shown.contains("hunter2") && !shown.contains(&login.credential),
            "{shown}"
        );
    }
}
