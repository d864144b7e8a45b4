//! The ICE servers for clients, with credentials for TURN servers that expire.
//!
//! TURN servers with a shared secret accept any user name that begins with its expiry time, with
//! the HMAC-SHA-1 of the name as its password (draft-uberti-behave-turn-rest-00; `use-auth-secret`
//! of coturn).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;

use crate::model::{Address, IceLogin, IceServer, IceServers};

/// The length of a user's pseudonym, in bytes.
const PSEUDONYM_BYTES: usize = 8;

/// The configured servers.
#[derive(Clone, Debug, Default)]
pub struct Ice {
    servers: Vec<IceServer>,
    relays: Option<Relays>,
}

/// The secret shared with the TURN servers.
#[derive(Clone)]
pub struct Relays {
    /// The shared secret.
    pub secret: String,
    /// The lifetime of credentials, in whole seconds.
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
    /// Creates the list. TURN servers without credentials get credentials per user.
    pub fn new(servers: Vec<IceServer>, relays: Option<Relays>) -> Self {
        let asks = servers.iter().any(asks_for_login);
        Self {
            servers,
            relays: relays.filter(|_| asks),
        }
    }

    /// The servers for this user, with fresh credentials. A user who may not relay gets no TURN servers.
    pub fn servers_for(&self, user: &Address, may_relay: bool) -> IceServers {
        if may_relay {
            return self.at(SystemTime::now(), user);
        }
        let servers = self.servers.iter().filter_map(|server| {
            let urls = server.urls.iter().filter(|url| !is_relay(url)).cloned();
            let urls: Vec<String> = urls.collect();
            (!urls.is_empty()).then(|| IceServer {
                urls: urls.into(),
                login: None,
            })
        });
        IceServers {
            servers: servers.collect(),
            ttl: None,
        }
    }

    /// How long after a login a client gets fresh credentials: half of their lifetime.
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
    /// Credentials for this user. The TURN server logs the user name, so it contains a pseudonym;
    /// it is the same for one user, because servers may count users.
    fn login(&self, now: SystemTime, user: &Address) -> IceLogin {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = now.as_secs().saturating_add(self.ttl.as_secs());
        // This signature is no valid password: its text does not begin with a time.
        let pseudonym = self.sign(&format!("user {user}"));
        let username = format!("{expiry}:{}", hex::encode(&pseudonym[..PSEUDONYM_BYTES]));
        IceLogin {
            credential: STANDARD.encode(self.sign(&username)),
            username,
        }
    }

    fn sign(&self, text: &str) -> [u8; 20] {
        // HMAC accepts keys of any length.
        let Ok(mac) = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes()) else {
            unreachable!("HMAC takes every key")
        };
        mac.chain_update(text).finalize().into_bytes().into()
    }
}

/// Whether a server is a TURN server without credentials.
fn asks_for_login(server: &IceServer) -> bool {
    server.login.is_none() && server.urls.iter().any(|url| is_relay(url))
}

/// Whether the URL names a TURN server.
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
    fn credentials_are_what_turn_servers_compute() {
        let login = relays().login(UNIX_EPOCH + NOW, &user("alice"));
        // printf %s '1700003600:3910e1b16ef0ce91' | openssl dgst -sha1 -hmac S -binary | base64
        assert_eq!(login.username, "1700003600:3910e1b16ef0ce91");
        assert_eq!(login.credential, "h9TP3/XQnsJ689XZGNREM/LB4IA=");
    }

    #[test]
    fn a_user_has_one_pseudonym() {
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
    fn only_turn_servers_without_credentials_get_some() {
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
    fn who_may_not_relay_gets_no_relay() {
        let own = IceLogin {
            username: "u".to_owned(),
            credential: "p".to_owned(),
        };
        let servers = vec![
            server(&["stun:a"], None),
            server(&["stun:b", "turn:b"], None),
            server(&["turns:c"], Some(own)),
        ];
        let told = Ice::new(servers, Some(relays())).servers_for(&user("alice"), false);
        assert_eq!(told.ttl, None);
        assert_eq!(
            told.servers,
            [server(&["stun:a"], None), server(&["stun:b"], None)]
        );
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
