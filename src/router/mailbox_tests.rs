use bytes::Bytes;

use super::*;
use crate::broker::Sender;
use crate::model::{Address, Body, Realm, SessionId, Signal, SignalKind};

#[tokio::test]
async fn full_is_told_and_stays_so() {
    let (mailbox, receiver) = mailbox(Bounds {
        events: 2,
        bytes: 100,
    });
    mailbox.post(Mail::Gap).unwrap();
    mailbox.post(Mail::Gap).unwrap();
    assert_eq!(mailbox.post(Mail::NameLost), Err(NotPosted::Closed));
    receiver.overflowed().await;
    assert_eq!(receiver.take().0.len(), 2);
    receiver.filled().await;
    assert!(
        receiver.has_overflowed(),
        "an empty box that was full is not forgotten"
    );
    assert_eq!(
        mailbox.post(Mail::Gap),
        Err(NotPosted::Closed),
        "what was lost cannot be made good"
    );
}

fn sender(name: &str) -> Arc<Sender> {
    let address = Address::new(Realm::default(), UserName::known(name).unwrap());
    let sender = Sender::new(address, SessionId::random(), 0, NodeId::known("n"));
    Arc::new(sender)
}

fn envelope(from: &Arc<Sender>, body: Bytes) -> Envelope {
    Envelope {
        from: Arc::clone(from),
        n: 1,
        idempotency_key: None,
        trace: None,
        payload: Payload::Signal(Signal {
            kind: SignalKind::Message,
            body: Body(body),
        }),
    }
}

#[tokio::test]
async fn what_waits_does_not_keep_the_frame_that_it_came_in() {
    let (mailbox, _receiver) = mailbox(Bounds {
        events: 1024,
        bytes: 1 << 20,
    });
    let from = sender("a");
    let mut kept = 0;
    for _ in 0..100 {
        let frame = Bytes::from(vec![b' '; 65_536]);
        let mail = Mail::Direct(envelope(&from, frame.slice(100..101)));
        mailbox.post(mail).unwrap();
        kept += usize::from(!frame.is_unique());
    }
    assert!(kept <= WAITS_BEHIND, "{kept} frames");
}

/// A sender has at most as much as is free, by count and by bytes.
#[tokio::test]
async fn the_sender_of_a_flood_is_refused_and_others_are_not() {
    for size in [1, 64_000] {
        let (mailbox, receiver) = mailbox(Bounds {
            events: 16,
            bytes: 16 * 64_000,
        });
        let mut accepted = Vec::new();
        for number in 0..5 {
            let from = sender(&format!("flooder{number}"));
            let post =
                || mailbox.post(Mail::Direct(envelope(&from, Bytes::from(vec![b' '; size]))));
            accepted.push((0..20).map_while(|_| post().ok()).count());
            assert_eq!(post(), Err(NotPosted::Share));
        }
        assert_eq!(accepted, [8, 4, 2, 1, 0], "of 16");
        mailbox.post(Mail::NameLost).unwrap();
        assert!(!receiver.has_overflowed());
        assert_eq!(receiver.take().0.len(), 16);
    }
}

#[tokio::test]
async fn a_session_is_told_that_it_missed_what_its_sender_believes_delivered() {
    let (mailbox, receiver) = mailbox(Bounds {
        events: 4,
        bytes: 100,
    });
    let from = sender("a");
    let mut told = 0;
    for _ in 0..3 {
        for missed in [false, false, true, true] {
            let mail = envelope(&from, Bytes::from_static(b"1"));
            assert_eq!(mailbox.post_or_miss(mail), missed);
        }
        let mails = receiver.take().0;
        told += mails
            .iter()
            .filter(|mail| matches!(mail, Mail::Gap))
            .count();
    }
    assert_eq!(told, 1, "whoever floods it does not choose how often");
}

#[tokio::test]
async fn a_closed_letterbox_takes_nothing() {
    let (mailbox, receiver) = mailbox(Bounds {
        events: 2,
        bytes: 100,
    });
    mailbox.post(Mail::Gap).unwrap();
    receiver.filled().await;
    assert_eq!(receiver.close().len(), 1);
    assert_eq!(mailbox.post(Mail::Gap), Err(NotPosted::Closed));
}
