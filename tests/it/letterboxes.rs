//! What every store of letterboxes promises (`switchboard::fabric::Letterboxes`), held by each of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use switchboard::fabric::embedded::Switch;
use switchboard::fabric::letterbox::{
    Carrier, DOWNLINK, Entered, Heard, Key, Post, Posted, Read, Telling, Then, UPLINK, address,
};
use switchboard::fabric::{self, Letterboxes, Opened, Terms};
use switchboard::model::{EntryId, NodeId, Secret, SessionId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::process::Redis;
use crate::support::{PATIENCE, eventually};

const TERMS: Terms = Terms {
    user_ttl: Duration::from_secs(10),
    node_ttl: Duration::from_secs(2),
    challenge: Duration::from_millis(500),
    grace: Duration::from_millis(500),
};

/// A node that has letterboxes, and nothing else.
struct Node {
    id: NodeId,
    boxes: Arc<dyn Letterboxes>,
    _inbox: fabric::Inbox,
    _drivers: JoinSet<()>,
}

fn run(id: NodeId, opened: Opened) -> Node {
    let mut drivers = JoinSet::new();
    for (_, driver) in opened.drivers {
        drivers.spawn(driver);
    }
    Node {
        id,
        boxes: opened.letterboxes,
        _inbox: opened.inbox,
        _drivers: drivers,
    }
}

/// Two nodes on each kind of store; what they are on is kept with them.
async fn grounds() -> Vec<(Vec<Node>, Option<Redis>)> {
    let switch = Switch::new(TERMS);
    let mut embedded = Vec::new();
    let redis = Redis::start().await;
    let mut on_redis = Vec::new();
    for _ in 0..2 {
        let id = NodeId::start("n");
        embedded.push(run(id.clone(), switch.plug(id)));
        let config = fabric::redis::Config {
            url: fabric::redis::Url::new(&redis.url()),
            prefix: "test:".to_owned(),
            lanes: 2,
            timeout: Duration::from_secs(2),
        };
        let id = NodeId::start("n");
        let opened = fabric::redis::open(&config, TERMS, id.clone(), Arc::default()).await;
        on_redis.push(run(id, opened.unwrap()));
    }
    for node in &on_redis {
        eventually("the node is at its store", async || {
            node.boxes.look(&key()).await.ok()
        })
        .await;
    }
    vec![(embedded, None), (on_redis, Some(redis))]
}

fn key() -> Key {
    let session = SessionId::random();
    Key {
        session,
        hash: Secret::random().hash_for(&address(session)),
    }
}

fn said(texts: &[&str]) -> Vec<Bytes> {
    let texts = texts.iter();
    texts.map(|text| Bytes::from((*text).to_owned())).collect()
}

impl Node {
    async fn opens(&self, texts: &[&str]) -> Key {
        let key = key();
        self.boxes.open(&key, said(texts)).await.unwrap();
        key
    }

    async fn posts(&self, key: &Key, texts: &[&str], once: Option<&str>) -> Posted {
        let post = Post {
            said: Some(said(texts)),
            once: once.map(str::to_owned),
        };
        match self.boxes.post(key, post).await.unwrap() {
            Entered::In(posted) => posted,
            other => panic!("{other:?}"),
        }
    }

    async fn hears(&self, key: &Key, epoch: u64, after: EntryId) -> Vec<(EntryId, Option<Bytes>)> {
        match self.boxes.hear(key.session, epoch, after).await.unwrap() {
            Heard::Said { entries, .. } => entries,
            other => panic!("{other:?}"),
        }
    }

    async fn tells(&self, key: &Key, epoch: u64, number: u64, telling: Telling) -> bool {
        let telling = Arc::new(telling);
        let told = self.boxes.tell(key.session, epoch, number, telling).await;
        told.unwrap()
    }

    async fn attaches(&self, key: &Key) -> u64 {
        match self.boxes.attach(key).await.unwrap() {
            Entered::In(number) => number,
            other => panic!("{other:?}"),
        }
    }

    async fn reads(&self, key: &Key, reader: u64, after: Option<EntryId>) -> (Vec<String>, bool) {
        match self.boxes.read(key, reader, after).await.unwrap() {
            Entered::In(Read::Events { events, reset, .. }) => {
                let events = events.into_iter();
                let texts = events.map(|(_, text)| String::from_utf8(text.to_vec()).unwrap());
                (texts.collect(), reset)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn places(&self, key: &Key, reader: u64) -> Vec<EntryId> {
        match self.boxes.read(key, reader, None).await.unwrap() {
            Entered::In(Read::Events { events, .. }) => {
                events.into_iter().map(|(place, _)| place).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn telling(texts: &[&str]) -> Telling {
    Telling {
        told: said(texts),
        ..Telling::default()
    }
}

#[tokio::test]
async fn what_is_posted_is_heard_in_order_and_once_for_each_key() {
    for (nodes, _store) in grounds().await {
        let [one, other] = &nodes[..] else { panic!() };
        let key = one.opens(&["a"]).await;
        let carrier = Carrier {
            node: Some(one.id.clone()),
            epoch: 1,
        };
        let accepted = |count| Posted::Accepted(count, carrier.clone());
        assert_eq!(other.posts(&key, &["b", "c"], Some("k")).await, accepted(2));
        assert_eq!(other.posts(&key, &["b", "c"], Some("k")).await, accepted(2));
        assert_eq!(one.posts(&key, &["d"], Some("l")).await, accepted(1));
        let entries = one.hears(&key, 1, EntryId::default()).await;
        let texts: Vec<_> = entries
            .iter()
            .map(|(_, text)| text.clone().unwrap())
            .collect();
        assert_eq!(texts, said(&["a", "b", "c", "d"]));
        let behind = one.hears(&key, 1, entries[2].0).await;
        assert_eq!(behind, entries[3..]);

        let wrong = Key {
            session: key.session,
            hash: Secret::random().hash_for(&address(key.session)),
        };
        let strange = other.boxes.post(&wrong, Post::default()).await.unwrap();
        assert_eq!(strange, Entered::Wrong);
        let unknown = other.boxes.post(&self::key(), Post::default()).await;
        assert_eq!(unknown.unwrap(), Entered::Gone);
    }
}

#[tokio::test]
async fn there_is_room_for_so_much_and_for_a_goodbye() {
    for (nodes, _store) in grounds().await {
        let [one, other] = &nodes[..] else { panic!() };
        let key = one.opens(&[]).await;
        let many = vec!["x"; UPLINK.entries];
        let full = |posted| matches!(posted, Posted::Full(_));
        assert!(!full(other.posts(&key, &many, None).await));
        assert!(full(other.posts(&key, &["more"], None).await));
        let goodbye = other.boxes.post(&key, Post::default()).await.unwrap();
        assert!(matches!(goodbye, Entered::In(Posted::Accepted(0, _))));
        let many = one.hears(&key, 1, EntryId::default()).await.pop().unwrap();
        let last = one.hears(&key, 1, many.0).await.pop().unwrap();
        assert_eq!(last.1, None, "it is the goodbye");
        // What was dealt with makes room.
        let dealt = Telling {
            cursor: Some(last.0),
            ..Telling::default()
        };
        assert!(one.tells(&key, 1, 1, dealt).await);
        let large = "x".repeat(UPLINK.bytes - 10);
        assert!(!full(other.posts(&key, &[&large], None).await));
        assert!(full(other.posts(&key, &["as much as this"], None).await));
        assert_eq!(one.hears(&key, 1, last.0).await.len(), 1);
    }
}

#[tokio::test]
async fn a_letterbox_is_taken_by_one_and_the_carrier_before_tells_nothing_more() {
    for (nodes, _store) in grounds().await {
        let [one, other] = &nodes[..] else { panic!() };
        let key = one.opens(&["a", "b"]).await;
        let places = one.hears(&key, 1, EntryId::default()).await;
        let dealt = Telling {
            told: said(&["1"]),
            cursor: Some(places[0].0),
            notes: vec![("user".to_owned(), "/a".to_owned())],
            then: Then::GoesOn,
        };
        assert!(one.tells(&key, 1, 1, dealt.clone()).await);
        // Nobody knows whether it was told: told again, it is not.
        assert!(one.tells(&key, 1, 1, dealt).await);
        let taken = other.boxes.take(key.session, 1).await.unwrap().unwrap();
        assert_eq!(taken.epoch, 2);
        assert_eq!(taken.cursor, places[0].0);
        assert_eq!(taken.notes, [("user".to_owned(), "/a".to_owned())]);
        let late = one.boxes.take(key.session, 1).await.unwrap();
        assert_eq!(late, None, "somebody else was first");
        assert!(!one.tells(&key, 1, 2, telling(&["late"])).await);
        let heard = one.boxes.hear(key.session, 1, places[0].0).await.unwrap();
        assert_eq!(heard, Heard::Taken);
        assert_eq!(other.hears(&key, 2, taken.cursor).await, places[1..]);
        assert!(other.tells(&key, 2, 1, telling(&["2"])).await);
        let reader = one.attaches(&key).await;
        let told = one.reads(&key, reader, None).await;
        assert_eq!(told, (vec!["1".to_owned(), "2".to_owned()], false));

        let handed = Telling {
            then: Then::HandedOver,
            ..Telling::default()
        };
        assert!(other.tells(&key, 2, 2, handed).await);
        let Entered::In(look) = one.boxes.look(&key).await.unwrap() else {
            panic!("it is gone");
        };
        let nobody = Carrier {
            node: None,
            epoch: 2,
        };
        assert_eq!(look.carrier, nobody);
    }
}

#[tokio::test]
async fn what_was_told_is_read_again_until_it_is_too_old() {
    for (nodes, _store) in grounds().await {
        let [one, other] = &nodes[..] else { panic!() };
        let key = one.opens(&[]).await;
        let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rounds = DOWNLINK.entries / texts.len() + 1;
        assert!(one.tells(&key, 1, 1, telling(&["first", "second"])).await);
        let reader = other.attaches(&key).await;
        let places = other.places(&key, reader).await;
        let (told, reset) = other.reads(&key, reader, Some(places[0])).await;
        assert_eq!((told, reset), (vec!["second".to_owned()], false));
        for round in 0..rounds {
            assert!(one.tells(&key, 1, 2 + round as u64, telling(&texts)).await);
        }
        let (told, reset) = other.reads(&key, reader, Some(places[0])).await;
        assert!(reset, "the second is not kept any more");
        assert_ne!(told[0], "second");
        let last = *other.places(&key, reader).await.last().unwrap();
        let mut after = last;
        let mut count = 0;
        while let Entered::In(Read::Events { events, reset, .. }) =
            other.boxes.read(&key, reader, Some(after)).await.unwrap()
        {
            assert!(!reset);
            let Some((place, _)) = events.last() else {
                break;
            };
            (after, count) = (*place, count + events.len());
        }
        assert!(count + 256 <= DOWNLINK.entries, "{count}");
        let never = EntryId {
            millis: u64::MAX / 2,
            sequence: 0,
        };
        assert!(other.reads(&key, reader, Some(never)).await.1, "invented");
        // Large ones are as many as fit.
        let large = "x".repeat(DOWNLINK.bytes / 4);
        for number in 100..110 {
            assert!(one.tells(&key, 1, number, telling(&[&large])).await);
        }
        let (told, reset) = other.reads(&key, reader, None).await;
        assert!(reset && (3..=4).contains(&told.len()), "{}", told.len());
    }
}

#[tokio::test]
async fn the_latest_reader_is_the_clients_and_is_woken() {
    for (nodes, _store) in grounds().await {
        let [one, other] = &nodes[..] else { panic!() };
        let key = one.opens(&[]).await;
        let (mut first_ear, mut second_ear) = (
            one.boxes.listen(key.session),
            other.boxes.listen(key.session),
        );
        let first = one.attaches(&key).await;
        let second = other.attaches(&key).await;
        let woken = timeout(PATIENCE, first_ear.heard()).await;
        assert!(woken.is_ok(), "the reader before is told");
        let found = one.boxes.read(&key, first, None).await.unwrap();
        assert_eq!(found, Entered::In(Read::Replaced));
        assert!(one.tells(&key, 1, 1, telling(&["news"])).await);
        // A subscription that is just being made is woken without news.
        eventually("the reader is woken", async || {
            timeout(PATIENCE, second_ear.heard()).await.unwrap();
            let (told, _) = other.reads(&key, second, None).await;
            (told == ["news"]).then_some(())
        })
        .await;
        let mut carrier_ear = one.boxes.listen(key.session);
        other.posts(&key, &["a"], None).await;
        let woken = timeout(PATIENCE, carrier_ear.heard()).await;
        assert!(woken.is_ok(), "the carrier is told");
    }
}

#[tokio::test]
async fn last_words_can_be_read_and_nothing_comes_after_them() {
    for (nodes, store) in grounds().await {
        let [one, other] = &nodes[..] else { panic!() };
        let key = one.opens(&["a"]).await;
        let last_words = Telling {
            told: said(&["goodbye"]),
            then: Then::Over,
            ..Telling::default()
        };
        assert!(one.tells(&key, 1, 1, last_words).await);
        assert!(!one.tells(&key, 1, 2, telling(&["more"])).await);
        let post = other.boxes.post(&key, Post::default()).await.unwrap();
        assert_eq!(post, Entered::Gone);
        assert_eq!(other.boxes.look(&key).await.unwrap(), Entered::Gone);
        assert_eq!(other.boxes.take(key.session, 1).await.unwrap(), None);
        let heard = one.boxes.hear(key.session, 1, EntryId::default()).await;
        assert_eq!(heard.unwrap(), Heard::Gone);
        let reader = other.attaches(&key).await;
        let told = other.reads(&key, reader, None).await;
        assert_eq!(told, (vec!["goodbye".to_owned()], false));
        let last = other.places(&key, reader).await[0];
        let after = other.boxes.read(&key, reader, Some(last)).await.unwrap();
        assert_eq!(after, Entered::Gone);
        if let Some(redis) = store {
            for (key, life) in redis.keys().await {
                assert!(life > 0, "{key} is kept for ever");
            }
        }
    }
}
