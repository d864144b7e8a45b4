//! What every store of revocations promises.

use std::time::SystemTime;

use switchboard::model::{Revocation, TokenGroup};
use testing::eventually;

use super::harness::{Backend, Node};

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn revocation(tokens: &str, issued_before: u64, ends_in: u64) -> Revocation {
    Revocation {
        tokens: TokenGroup::of_subject(None, tokens),
        issued_before,
        until: now() + ends_in,
    }
}

async fn stored(node: &Node) -> Vec<Revocation> {
    let mut stored = node.broker.revocations().await.unwrap();
    stored.sort_by(|one, other| one.tokens.as_str().cmp(other.tokens.as_str()));
    stored
}

pub(super) async fn a_revocation_is_kept_until_its_tokens_have_ended(backend: &Backend) {
    let (one, other) = (backend.connect().await, backend.connect().await);
    assert_eq!(stored(&one).await, []);
    let (long, short) = (revocation("a b: *", 10, 900), revocation("b", 20, 3));
    assert_eq!(one.broker.revoke(&[short, long.clone()]).await, Ok(true));
    assert_eq!(stored(&other).await.len(), 2);
    // What two say of the same tokens counts together.
    let again = revocation("a b: *", 5, 1800);
    assert_eq!(
        other.broker.revoke(std::slice::from_ref(&again)).await,
        Ok(true)
    );
    let both = Revocation {
        issued_before: 10,
        ..again
    };
    assert_eq!(stored(&one).await[0], both);
    eventually("the short one is forgotten with the next", async || {
        let next = revocation("c", 30, 900);
        assert_eq!(one.broker.revoke(&[next]).await, Ok(true));
        let left = stored(&other).await;
        let tokens: Vec<_> = left.iter().map(|one| one.tokens.as_str()).collect();
        (tokens == ["sub * a b: *", "sub * c"]).then_some(())
    })
    .await;
}

pub(super) async fn there_is_room_for_so_many_revocations(backend: &Backend) {
    let node = backend.connect().await;
    let many: Vec<_> = (0..10_000)
        .map(|number| revocation(&number.to_string(), 10, 900))
        .collect();
    assert_eq!(node.broker.revoke(&many).await, Ok(true));
    assert_eq!(stored(&node).await.len(), 10_000);
    let more = revocation("more", 10, 900);
    assert_eq!(node.broker.revoke(&[more]).await, Ok(false));
    assert_eq!(stored(&node).await.len(), 10_000);
}
