//! The token of a session: what its client may do, and until when.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Session, Socket};
use crate::limits::RateLimit;
use crate::model::{Claims, CloseReason, Correlation, Event, Refusal, Secret};
use crate::protocol::Codec;

/// How long it is remembered at most who may call a user.
const CALLERS_KEPT: Duration = Duration::from_hours(30 * 24);

/// What a new token says or why it is refused, and the request's id.
pub(super) type Renewed = (Result<Arc<Claims>, Refusal>, Option<Correlation>);
/// A new token that is being verified. The session goes on meanwhile.
pub(super) type Renewal = BoxFuture<'static, Renewed>;

/// Waits for the new token, if one is being verified.
pub(super) async fn renewed(renewal: &mut Option<Renewal>) -> Renewed {
    match renewal {
        Some(verifying) => {
            let verified = verifying.await;
            *renewal = None;
            verified
        }
        None => pending().await,
    }
}

impl<S: Socket, D: Codec> Session<S, D> {
    /// Lets the client do what its token says; `None` if it has none. The token may have been revoked since it was
    /// checked.
    pub(super) fn grant(&mut self, claims: Option<Arc<Claims>>) -> Result<(), CloseReason> {
        let transport = self.transport();
        let valid_for = claims.as_ref();
        let valid_for = valid_for.map(|claims| claims.valid_for(SystemTime::now()));
        self.heartbeat.token_ends_in(valid_for);
        let own = claims.as_ref().and_then(|claims| claims.signals_per_second);
        if let Some(signals_per_second) =
            own.filter(|own| *own != self.context.pace.signals_per_second)
        {
            self.context.rate = RateLimit::new(signals_per_second);
            self.context.pace.signals_per_second = signals_per_second;
        }
        let Some(runner) = &mut self.runner else {
            return Ok(());
        };
        runner.state.set_claims(claims.clone());
        if let (Some(claims), Some(valid_for)) = (&claims, valid_for) {
            let (broker, callers) = (runner.router.broker(), claims.callable_by.as_ref());
            // A new session begins with none.
            if callers.is_some() || runner.is_resumed() {
                broker.set_callers(runner.address(), callers, valid_for.min(CALLERS_KEPT));
            }
        }
        runner.describe(transport, D::NAME, claims.clone());
        // Whoever revokes it from here on finds it.
        let revoked = claims.is_some_and(|claims| runner.router.check_token(&claims).is_err());
        if revoked {
            return Err(CloseReason::TokenRevoked);
        }
        Ok(())
    }

    /// Verifies a new token, one at a time.
    pub(super) fn renew(&mut self, token: Secret, id: Option<Correlation>) {
        if self.renewal.is_some() {
            let refusal = Refusal::TooMany("The token before this one is still being checked");
            return self.refuse(refusal, id, None);
        }
        let auth = Arc::clone(&self.context.auth);
        let verifying = async move {
            let claims = auth.admit(Some(token.expose()), None).await;
            // Nobody needs no token here.
            let claims = claims.and_then(|claims| claims.ok_or(Refusal::Unauthorized("No token")));
            (claims, id)
        };
        self.renewal = Some(verifying.boxed());
    }

    /// Replaces the token. The name, its realm and who may call it stay what they are.
    pub(super) fn take_token(&mut self, (verified, id): Renewed) -> Result<(), CloseReason> {
        let Some(runner) = &self.runner else {
            return Ok(());
        };
        let address = runner.address();
        let callable_by = runner
            .state
            .claims()
            .and_then(|claims| claims.callable_by.as_ref());
        let verified = verified.and_then(|claims| {
            runner.router.check_token(&claims)?;
            claims.may_be(&address.name)?;
            if claims.realm_at(&self.context.realm)? != address.realm
                || claims.callable_by.as_ref() != callable_by
            {
                return Err(Refusal::Forbidden(
                    "The token has another realm or callable_by than the login: log in again",
                ));
            }
            Ok(claims)
        });
        match verified {
            Ok(claims) => {
                let valid_for = claims.valid_for(SystemTime::now());
                self.grant(Some(claims))?;
                self.tell(Event::TokenRenewed { valid_for, id });
            }
            Err(refusal) => self.refuse(refusal, id, None),
        }
        Ok(())
    }
}
