//! The promises of the broker (`switchboard::broker::Broker`), tested against every implementation.

mod delivery;
mod events;
mod harness;
mod leases;
mod names;
mod nodes;
mod resumable;
mod revocations;

use delivery::{
    a_plain_session_receives_envelopes_after_the_gap, a_send_reports_its_outcome,
    an_absence_is_told_to_those_who_may_call, envelopes_arrive_in_order_before_the_barrier,
    missed_pushes_are_announced_and_stay_in_the_inbox, only_those_whom_a_lease_names_reach_it,
};
use events::{
    a_session_begins_and_ends_once, both_sides_tell_of_one_call,
    events_wait_in_order_until_they_are_told, one_node_tells_events,
    two_who_call_at_once_are_in_one_call,
};
use harness::Backend;
use leases::{
    a_claimed_name_starts_with_an_empty_inbox, a_name_has_one_holder,
    a_name_that_another_session_held_meanwhile_is_lost, a_release_returns_unread_entries,
    a_reserved_name_is_for_its_owner, an_unrenewed_lease_expires,
    only_the_holder_renews_and_releases,
};
use names::names_of_a_realm_are_listed;
use nodes::{
    a_locator_is_found_until_it_expires, a_node_without_heartbeats_is_dead,
    a_question_is_answered_by_the_asked_node,
};
use resumable::{
    a_full_inbox_refuses_envelopes, a_resume_replaces_earlier_connections,
    a_resumed_session_is_as_it_was_left, a_rewritten_session_confirms_lost_entries,
    a_session_is_resumed_only_with_its_secret, an_inbox_keeps_unconfirmed_entries,
    inbox_limits_are_exact, inbox_limits_count_only_unconfirmed_entries,
    no_sender_fills_more_of_an_inbox_than_is_free,
};
use revocations::{
    a_revocation_is_kept_until_its_tokens_have_ended, there_is_room_for_so_many_revocations,
};

/// Runs each case against each backend.
macro_rules! conforms {
    ($($case:ident),* $(,)?) => {
        mod memory {$(
            #[tokio::test]
            async fn $case() {
                super::$case(&super::Backend::memory()).await;
            }
        )*}
        mod redis {$(
            #[tokio::test]
            async fn $case() {
                super::$case(&super::Backend::redis().await).await;
            }
        )*}
    };
}

conforms! {
    a_name_has_one_holder,
    a_claimed_name_starts_with_an_empty_inbox,
    only_the_holder_renews_and_releases,
    a_name_that_another_session_held_meanwhile_is_lost,
    a_reserved_name_is_for_its_owner,
    a_release_returns_unread_entries,
    a_send_reports_its_outcome,
    only_those_whom_a_lease_names_reach_it,
    an_absence_is_told_to_those_who_may_call,
    envelopes_arrive_in_order_before_the_barrier,
    missed_pushes_are_announced_and_stay_in_the_inbox,
    a_plain_session_receives_envelopes_after_the_gap,
    an_unrenewed_lease_expires,
    a_node_without_heartbeats_is_dead,
    a_question_is_answered_by_the_asked_node,
    a_locator_is_found_until_it_expires,
    a_session_is_resumed_only_with_its_secret,
    a_resume_replaces_earlier_connections,
    a_resumed_session_is_as_it_was_left,
    an_inbox_keeps_unconfirmed_entries,
    a_full_inbox_refuses_envelopes,
    no_sender_fills_more_of_an_inbox_than_is_free,
    inbox_limits_are_exact,
    inbox_limits_count_only_unconfirmed_entries,
    a_rewritten_session_confirms_lost_entries,
    names_of_a_realm_are_listed,
    a_session_begins_and_ends_once,
    both_sides_tell_of_one_call,
    two_who_call_at_once_are_in_one_call,
    events_wait_in_order_until_they_are_told,
    one_node_tells_events,
    a_revocation_is_kept_until_its_tokens_have_ended,
    there_is_room_for_so_many_revocations,
}
