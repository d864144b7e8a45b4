//! Runs thousands of random histories of a few sessions. Whatever happens, in whatever order, the guarantees of
//! docs/src/guarantees.md hold.

mod client;
mod connection;
mod found;
mod store;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::connection::Cut;
use self::world::{Fault, World, address};
use crate::model::SignalKind;

/// How many histories of each kind to run.
const HISTORIES: u32 = 3000;
/// Chooses them.
const SEED: u64 = 1;

/// One step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize, usize, SignalKind),
    Leave(usize, usize),
    Deliver(usize, u8),
    ReadWire(usize),
    Confirm(usize),
    AppConfirm(usize),
    Wait(usize),
    Disconnect(usize, Cut),
    Resume(usize),
    Fault(Fault),
    LoseUpdate,
    LoseData,
    LoseName(usize),
}

fn step(users: usize) -> impl Strategy<Value = Step> {
    let user = move || 0..users;
    let pair = move || (0..users, 1..users).prop_map(move |(one, by)| (one, (one + by) % users));
    let kinds = [
        SignalKind::Offer,
        SignalKind::Answer,
        SignalKind::Candidate,
        SignalKind::Message,
    ];
    let kind = proptest::sample::select(kinds.to_vec());
    let cut = proptest::sample::select(vec![Cut::Noticed, Cut::Unnoticed, Cut::NodeDies]);
    prop_oneof![
        8 => (pair(), kind).prop_map(|((from, to), kind)| Step::Send(from, to, kind)),
        2 => pair().prop_map(|(from, to)| Step::Leave(from, to)),
        16 => (user(), 0..5_u8).prop_map(|(user, kind)| Step::Deliver(user, kind)),
        4 => user().prop_map(Step::ReadWire),
        2 => user().prop_map(Step::Confirm),
        1 => user().prop_map(Step::AppConfirm),
        1 => user().prop_map(Step::Wait),
        1 => (user(), cut).prop_map(|(user, cut)| Step::Disconnect(user, cut)),
        2 => user().prop_map(Step::Resume),
        1 => prop_oneof![Just(Fault::Lost), Just(Fault::Unanswered)].prop_map(Step::Fault),
        1 => Just(Step::LoseUpdate),
        1 => Just(Step::LoseData),
        1 => user().prop_map(Step::LoseName),
    ]
}

/// What may go wrong in a history.
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each allows one kind of fault"
)]
struct Allowed {
    faults: bool,
    losses: bool,
    /// Updates of records are lost.
    updates: bool,
    /// Names are freed by nodes that believe another node dead. Its users' peers, which end their calls then, are not
    /// part of the model.
    frees: bool,
}

const FAULTS: Allowed = Allowed {
    faults: true,
    losses: false,
    updates: false,
    frees: false,
};

/// Runs a history to its end.
fn run(resumable: &[bool], steps: &[Step], allowed: Allowed) -> World {
    let mut world = World::new(resumable);
    let mut number = 0;
    for step in steps {
        match *step {
            Step::Send(from, to, kind) if world.listens(from) => {
                world.read_wire(from);
                number += 1;
                let input = world.users[from].client.send(number, to, kind);
                world.on(from, input);
            }
            Step::Leave(from, with) if world.listens(from) => {
                world.read_wire(from);
                let input = world.users[from].client.leave(with);
                world.on(from, input);
            }
            Step::Deliver(user, kind) => drop(world.deliver(user, kind)),
            Step::ReadWire(user) => world.read_wire(user),
            Step::Confirm(user) => world.confirm(user),
            Step::AppConfirm(user) => world.app_confirms(user),
            Step::Wait(user) => drop(world.wait(user)),
            // A loss of data and the loss of what a node knows at once are two faults: a signal may then be received
            // twice.
            Step::Disconnect(user, Cut::NodeDies | Cut::Unnoticed)
                if allowed.losses || allowed.frees =>
            {
                world.disconnect(user, Cut::Noticed);
            }
            Step::Disconnect(user, cut) => world.disconnect(user, cut),
            Step::Resume(user) => world.resume(user),
            Step::Fault(fault) if allowed.faults => world.fault = Some(fault),
            Step::LoseUpdate if allowed.updates => world.loses_update = true,
            Step::LoseData if allowed.losses => world.lose_data(),
            Step::LoseName(user) if allowed.frees => world.lose_name(user),
            // Not allowed, or nobody listens.
            _ => {}
        }
    }
    world.come_to_rest();
    world
}

/// Every accepted signal was received, or its receiver knows that something may be missing. A signal that is received
/// twice panics at once.
fn nothing_is_lost(world: &World) {
    for (from, sender) in world.users.iter().enumerate() {
        for (number, message) in &sender.client.sent {
            let receiver = &world.users[message.to].client;
            let heard = receiver.heard.get(&address(from).name);
            let is_heard = heard.is_some_and(|heard| heard.contains(number));
            let is_excused = receiver.data_was_lost && receiver.is_told_missed;
            assert!(
                is_heard || !message.is_accepted || is_excused,
                "{number} from {from} to {} was accepted and is lost",
                message.to
            );
            assert!(
                message.is_accepted || !sender.client.is_resumable,
                "{number} of {from} was never answered"
            );
        }
    }
}

/// Each user receives the signals of another in the order of sending.
fn order_is_kept(world: &World) {
    for user in &world.users {
        for (from, heard) in &user.client.heard {
            assert!(heard.is_sorted(), "out of order from {from}: {heard:?}");
        }
    }
}

/// Both sides of a call agree whether it goes on, and no client waits for a user who is in no call with it. A surplus
/// leave panics at once. (A client that receives a leave while its own offer is under way cannot know that the offer
/// begins the next call.)
fn calls_agree(world: &World) {
    let call = |one: usize, other: usize| {
        let state = world.users[one].state.as_ref();
        state.and_then(|state| state.calls.get(&address(other).name))
    };
    for (one, user) in world.users.iter().enumerate() {
        for other in 0..world.users.len() {
            let (here, there) = (call(one, other), call(other, one));
            // A plain session's signal whose outcome is unknown may have arrived.
            let is_unsure = |one: usize, other: usize| {
                world.users[one]
                    .client
                    .unsure
                    .contains(&address(other).name)
            };
            if !is_unsure(one, other) && !is_unsure(other, one) {
                let agree = here.is_some() == there.is_some();
                assert!(agree, "{one} and {other} do not agree");
            }
            let waits = user.client.calls.contains(&address(other).name);
            let is_told = user.client.data_was_lost && user.client.is_told_missed;
            assert!(
                here.is_some() || !waits || is_told,
                "{one} waits for {other}"
            );
        }
    }
}

/// The same histories each time: one that fails by chance would be a bug to investigate, not a fault of the change
/// under test. `PROPTEST_RNG_SEED` chooses others, as the nightly run does.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        cases: HISTORIES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn resumable_sessions_lose_nothing_and_keep_order(steps in vec(step(2), 0..120)) {
        let world = run(&[true, true], &steps, Allowed::default());
        nothing_is_lost(&world);
        order_is_kept(&world);
        calls_agree(&world);
    }

    #[test]
    fn a_signal_whose_outcome_is_unknown_is_heard_once_when_it_is_repeated(steps in vec(step(3), 0..150)) {
        let world = run(&[true, true, false], &steps, FAULTS);
        nothing_is_lost(&world);
        order_is_kept(&world);
        calls_agree(&world);
    }

    #[test]
    fn after_a_loss_of_data_everybody_concerned_is_told(steps in vec(step(3), 0..150)) {
        let world = run(&[true, true, false], &steps, Allowed { losses: true, ..Allowed::default() });
        nothing_is_lost(&world);
        calls_agree(&world);
    }

    /// Calls are not compared: if the update that says of a leave is lost, and then the connection, the next one takes
    /// the call for alive until its peer is heard of again.
    #[test]
    fn a_lost_update_of_a_record_loses_and_repeats_nothing(steps in vec(step(3), 0..150)) {
        let world = run(&[true, true, false], &steps, Allowed { updates: true, ..FAULTS });
        nothing_is_lost(&world);
    }

    #[test]
    fn a_session_whose_name_was_freed_is_told(steps in vec(step(2), 0..120)) {
        let world = run(&[true, true], &steps, Allowed { frees: true, ..Allowed::default() });
        nothing_is_lost(&world);
    }

    #[test]
    fn plain_sessions_hear_in_order_what_they_were_sent(steps in vec(step(3), 0..150)) {
        let world = run(&[false, false, true], &steps, Allowed::default());
        nothing_is_lost(&world);
        order_is_kept(&world);
        calls_agree(&world);
    }
}
