//! When a certificate ends, and when its operator is reminded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use tracing::{error, warn};
use x509_parser::parse_x509_certificate;

const DAY: Duration = Duration::from_hours(24);
/// From when on the operator is reminded.
const SOON: Duration = Duration::from_hours(14 * 24);

/// The last day of a certificate. It is served after it too: a client may not mind, and a closed door helps nobody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    ends: SystemTime,
    reminded: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reminder {
    EndsWithin { days: u64 },
    HasEnded,
}

impl Expiry {
    /// That of this certificate; none if it does not tell (RFC 5280, section 4.1.2.5).
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let seconds = parsed.validity().not_after.timestamp();
        // Whatever ended before 1970 has ended.
        let ends = UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
        Some(Self {
            ends,
            reminded: None,
        })
    }

    /// Tells the operator, at most once a day, of what has ended or soon will.
    pub(super) fn remind(&mut self) {
        match self.reminder(SystemTime::now()) {
            Some(Reminder::EndsWithin { days }) => {
                warn!("The certificate of tls.certificate ends within {days} days: renew it");
            }
            Some(Reminder::HasEnded) => {
                error!(
                    "The certificate of tls.certificate has ended, and clients refuse it: renew it"
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
            Err(_) => Reminder::HasEnded,
            Ok(left) if left < SOON => Reminder::EndsWithin {
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
        assert_eq!(remind_at(86, 0), None, "two weeks are enough");
        let soon = |days| Some(Reminder::EndsWithin { days });
        assert_eq!(remind_at(86, 1), soon(14));
        assert_eq!(remind_at(87, 0), None, "not again on the same day");
        assert_eq!(remind_at(87, 1), soon(13));
        assert_eq!(remind_at(99, 1), soon(1));
        assert_eq!(remind_at(100, 1), Some(Reminder::HasEnded));
        assert_eq!(remind_at(101, 0), None);
    }
}
