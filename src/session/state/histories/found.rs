//! Histories that found a mistake, in their shortest form.

use super::connection::Cut;
use super::world::Fault;
use super::{FAULTS, Step, calls_agree, nothing_is_lost, order_is_kept, run};
use crate::model::SignalKind;

/// Found by the histories: the second leave claimed that nothing was received in its call, and so did not end the
/// first call.
#[test]
fn two_leaves_of_which_the_first_is_lost_end_both_calls() {
    let steps = [
        Step::Send(1, 2, SignalKind::Offer),
        Step::Deliver(2, 0),
        Step::Fault(Fault::Lost),
        Step::Leave(2, 1),
        Step::Send(2, 1, SignalKind::Offer),
        Step::Leave(2, 1),
    ];
    calls_agree(&run(&[true, true, false], &steps, FAULTS));
}

/// Found by the histories: a session that moved before its leave had arrived never told its peer.
#[test]
fn a_leave_that_is_lost_is_sent_again_by_the_next_connection() {
    let steps = [
        Step::Send(1, 0, SignalKind::Offer),
        Step::Fault(Fault::Lost),
        Step::Leave(1, 0),
        Step::Deliver(1, 1),
        Step::Disconnect(1, Cut::Noticed),
    ];
    calls_agree(&run(&[true, true], &steps, FAULTS));
}

/// Found by the histories: a signal that was refused at once, behind a notice, was taken for the first one,
/// because the outcomes of those before it were not known yet.
#[test]
fn the_first_signal_that_is_refused_is_the_earliest() {
    let steps = [
        Step::Send(0, 2, SignalKind::Offer),
        Step::Send(0, 1, SignalKind::Answer),
        Step::Deliver(0, 1),
        Step::Send(0, 2, SignalKind::Candidate),
        Step::Disconnect(0, Cut::NodeDies),
        Step::Fault(Fault::Lost),
        Step::Resume(0),
        Step::Send(0, 2, SignalKind::Offer),
        Step::Deliver(0, 1),
        Step::Send(0, 2, SignalKind::Message),
    ];
    order_is_kept(&run(&[true, true, false], &steps, FAULTS));
}

/// Found by the histories: a late leave ended the call only on the side that had received a repeated offer after
/// it.
#[test]
fn a_leave_that_comes_after_a_repeated_offer_ends_no_call() {
    let steps = [
        Step::Send(1, 0, SignalKind::Offer),
        Step::Fault(Fault::Lost),
        Step::Leave(1, 0),
        Step::Fault(Fault::Lost),
        Step::Disconnect(1, Cut::Noticed),
        Step::Resume(1),
    ];
    calls_agree(&run(&[true, true], &steps, FAULTS));
}

/// Found by the histories: the answer to a repeated offer, whose call was over, was lost with its connection.
#[test]
fn an_answer_that_a_call_is_over_is_sent_again_by_the_next_connection() {
    let steps = [
        Step::Send(0, 1, SignalKind::Offer),
        Step::Deliver(1, 0),
        Step::Disconnect(0, Cut::Noticed),
        Step::Leave(1, 0),
        Step::Fault(Fault::Lost),
        Step::Resume(0),
        Step::Fault(Fault::Lost),
        Step::Deliver(1, 0),
        Step::Disconnect(1, Cut::Noticed),
    ];
    calls_agree(&run(&[true, true, false], &steps, FAULTS));
}

/// Found by the histories: an update that freed an entry was lost. The next one, which left with the connection, freed
/// nothing, and no longer said that the entry was a repetition.
#[test]
fn a_repetition_that_a_lost_update_freed_is_not_told() {
    let updates = super::Allowed {
        updates: true,
        ..FAULTS
    };
    let steps = [
        Step::Send(0, 1, SignalKind::Candidate),
        Step::Send(0, 1, SignalKind::Candidate),
        Step::Deliver(1, 0),
        Step::Disconnect(0, Cut::Noticed),
        Step::Resume(0),
        Step::LoseUpdate,
        Step::Deliver(1, 0),
        Step::Deliver(1, 0),
        Step::ReadWire(1),
        Step::Confirm(1),
        Step::Disconnect(1, Cut::Noticed),
    ];
    nothing_is_lost(&run(&[true, true, false], &steps, updates));
}

/// Found by the histories: that the application confirms was not in the record when the connection broke. The next one
/// took the browser's pong for a confirmation of what the application had not seen.
#[test]
fn the_next_connection_knows_that_the_application_confirms() {
    let steps = [
        Step::Send(1, 0, SignalKind::Offer),
        Step::Send(0, 1, SignalKind::Offer),
        Step::Deliver(1, 0),
        Step::Send(0, 1, SignalKind::Offer),
        Step::Confirm(1),
        Step::AppConfirm(1),
        Step::Disconnect(1, Cut::Unnoticed),
        Step::Resume(1),
        Step::Confirm(1),
        Step::Disconnect(1, Cut::Noticed),
    ];
    nothing_is_lost(&run(&[true, true], &steps, super::Allowed::default()));
}
