use super::super::wire;
use super::*;

fn seq(millis: u64) -> Offset {
    Offset {
        millis,
        sequence: 0,
    }
}

fn push(buffer: &mut Buffer, text: &str, entry: Option<u64>) {
    buffer.push(text.to_owned(), entry.map(seq));
}

fn texts(unread: &Unread) -> Vec<&str> {
    let texts = unread.events.iter();
    texts.map(|(_, text)| text.as_str()).collect()
}

/// A buffer with a login reply, an ack and two signals.
fn sample() -> Buffer {
    let mut buffer = Buffer::new();
    push(&mut buffer, "pong", None);
    buffer.mark_logged_in();
    push(&mut buffer, "login", None);
    push(&mut buffer, "one", Some(1));
    push(&mut buffer, "ack", None);
    push(&mut buffer, "two", Some(2));
    buffer
}

#[test]
fn a_stream_continues_after_its_last_event_also_on_another_node() {
    let mut buffer = sample();
    let mut moved: Buffer = wire::read(&wire::write(&buffer)).unwrap();
    for buffer in [&mut buffer, &mut moved] {
        let all = buffer.read(EventId::default());
        assert_eq!(texts(&all), ["pong", "login", "one", "ack", "two"]);
        assert!(!all.reset);
        assert_eq!(buffer.read(all.next), Unread::nothing(all.next));
        assert_eq!(texts(&buffer.read(all.events[2].0)), ["ack", "two"]);
    }
}

#[test]
fn a_stream_continues_after_its_inbox_offset_if_the_run_is_lost() {
    let before = sample().read(EventId::default()).events;
    let mut buffer = Buffer::new();
    buffer.greet_next = true;
    buffer.mark_logged_in();
    push(&mut buffer, "login again", None);
    push(&mut buffer, "two", Some(2));
    buffer.confirmed = Some(seq(1));
    let of_nothing = buffer.read(EventId::default());
    assert_eq!(texts(&of_nothing), ["login again", "two"]);
    assert!(of_nothing.reset, "entry one is lost");
    assert_eq!(texts(&buffer.read(before[0].0)), ["login again", "two"]);
    let of_one = buffer.read(before[2].0);
    assert_eq!((texts(&of_one), of_one.reset), (vec!["two"], false));
    let of_two = buffer.read(before[4].0);
    assert!(of_two.is_empty());
    push(&mut buffer, "three", Some(3));
    assert_eq!(texts(&buffer.read(of_two.next)), ["three"]);
}

#[test]
fn entries_read_in_an_earlier_run_are_not_repeated() {
    let before = sample().read(EventId::default()).events;
    let mut buffer = Buffer::new();
    buffer.mark_logged_in();
    push(&mut buffer, "ack", None);
    let first = buffer.read(before[4].0);
    assert_eq!(texts(&first), ["ack"]);
    push(&mut buffer, "two", Some(2));
    push(&mut buffer, "three", Some(3));
    assert_eq!(texts(&buffer.read(first.next)), ["three"]);
}

/// Found by chaos: a home that was cut off from Redis had a status event for a client that had read on elsewhere, whose
/// next stream began behind that event.
#[test]
fn the_events_of_a_home_that_was_cut_off_lead_no_client_back() {
    let mut cut_off = sample();
    let mut elsewhere = Buffer::new();
    elsewhere.mark_logged_in();
    push(&mut elsewhere, "three", Some(3));
    let three = elsewhere.read(EventId::default()).next;
    push(&mut cut_off, "status", None);
    let told = cut_off.read(three);
    assert_eq!(texts(&told).last(), Some(&"status"));
    let back = elsewhere.read(told.next);
    assert_eq!(texts(&back), [""; 0], "entry three was read before");
}

#[test]
fn the_buffer_is_bounded_and_reports_a_loss() {
    let mut buffer = sample();
    let end = buffer.read(EventId::default()).next;
    for _ in 0..=MAX_EVENTS {
        push(&mut buffer, "x", None);
    }
    let late = buffer.read(end);
    assert_eq!((late.events.len(), late.reset), (MAX_EVENTS, true));
    assert!(buffer.read(EventId::default()).reset);
    assert!(
        buffer.read(late.next).is_empty(),
        "the loss is reported once"
    );
    push(&mut buffer, &"y".repeat(MAX_BYTES), None);
    assert_eq!(buffer.read(end).events.len(), 1);
}

#[test]
fn event_ids_round_trip_as_text() {
    assert_eq!(EventId::default().to_string(), "0-0");
    for text in ["0-0", "3-4294967295", "3-7-0-0", "3-7-1795528545005-2"] {
        assert_eq!(EventId::parse(text).unwrap().to_string(), text);
    }
    for dirt in ["", "x", "1", "-", "1-2-3", "1-x", "1-4294967296", "é-1"] {
        assert_eq!(EventId::parse(dirt), None, "{dirt}");
    }
}
