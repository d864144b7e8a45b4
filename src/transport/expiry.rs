//! Reminds the operator before a TLS certificate expires.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use tracing::{error, warn};
use x509_parser::parse_x509_certificate;

const DAY: Duration = Duration::from_hours(24);
/// Reminders start this long before the certificate expires.
const REMIND_BEFORE: Duration = Duration::from_hours(14 * 24);

/// The expiry of a certificate. An expired certificate is still served: some clients accept it, and
/// refusing TLS would help nobody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    ends: SystemTime,
    reminded: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reminder {
    ExpiresWithin { days: u64 },
    Expired,
}

impl Expiry {
    /// Reads the expiry of a certificate; `None` if it cannot be parsed (RFC 5280, section
    /// 4.1.2.5).
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let seconds = parsed.validity().not_after.timestamp();
        // A time before 1970 counts as 1970: expired either way.
        let ends = UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
        Some(Self {
            ends,
            reminded: None,
        })
    }

    /// Logs, at most once a day, that the certificate has expired or will expire soon.
    pub(super) fn remind(&mut self) {
        match self.reminder(SystemTime::now()) {
            Some(Reminder::ExpiresWithin { days }) => {
                warn!(
                    "The certificate in tls.certificate expires within {days} days: \
                     replace the file, it is reloaded within 2 s"
                );
            }
            Some(Reminder::Expired) => {
                error!(
                    "The certificate in tls.certificate has expired and clients refuse it: \
                     replace the file, it is reloaded within 2 s"
                );
            }
            None => {}
        }
    }

    fn reminder(&mut self, now: SystemTime) -> Option<Reminder> {
        let is_fresh = |at: SystemTime| now.duration_since(at).is_ok_and(|passed| passed < DAY);
        if self.reminded.is_some_and(is_fresh) {
            return None;
        }
        let reminder = match self.ends.duration_since(now) {
            Err(_) => Reminder::Expired,
            Ok(left) if left < REMIND_BEFORE => Reminder::ExpiresWithin {
                days: left.as_secs() / DAY.as_secs() + 1,
            },
            Ok(_) => return None,
        };
        self.reminded = Some(now);
        Some(reminder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_reminded_once_a_day() {
        let ends = UNIX_EPOCH + DAY * 100;
        let mut expiry = Expiry {
            ends,
            reminded: None,
        };
        let mut remind_at = |days: u32, seconds| {
            expiry.reminder(UNIX_EPOCH + DAY * days + Duration::from_secs(seconds))
        };
        assert_eq!(remind_at(86, 0), None, "no reminder two weeks before");
        let soon = |days| Some(Reminder::ExpiresWithin { days });
        assert_eq!(remind_at(86, 1), soon(14));
        assert_eq!(remind_at(87, 0), None, "one reminder a day");
        assert_eq!(remind_at(87, 1), soon(13));
        assert_eq!(remind_at(99, 1), soon(1));
        assert_eq!(remind_at(100, 1), Some(Reminder::Expired));
        assert_eq!(remind_at(101, 0), None);
    }
}
