//! What every broker promises about the names of a realm.

use switchboard::model::Realm;

use super::harness::{Backend, lease};

pub(super) async fn names_of_a_realm_are_listed(backend: &Backend) {
    let (here, there) = (backend.connect().await, backend.connect().await);
    let realm = Realm::new("peer*js:{k}");
    let mut holders = Vec::new();
    for (number, node) in [&here, &there, &here].into_iter().enumerate() {
        let mut lease = lease(&format!("user {number}"));
        lease.address.realm = realm.clone();
        node.claims(&lease).await;
        holders.push((lease.address.name.clone(), lease.held_by(&node.id)));
    }
    here.claims(&lease("of another realm")).await;
    let mut found = there.broker.names(&realm, 100).await.unwrap();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(found, holders);
    assert_eq!(there.broker.names(&realm, 2).await.unwrap().len(), 2);
    let nobody = there.broker.names(&Realm::new("empty"), 100).await.unwrap();
    assert!(nobody.is_empty());
}
