use super::*;

const CLOCKS: Clocks = Clocks {
    ping_every: Duration::from_secs(10),
    silent_after: Duration::from_secs(20),
    login_within: Duration::from_mins(2),
    doubt: Duration::from_secs(2),
    beats_within: None,
};

async fn next(heartbeat: &mut Heartbeat) -> (Pulse, Duration) {
    let since = Instant::now();
    loop {
        heartbeat.due().await;
        let pulse = heartbeat.beat();
        if pulse != Pulse::Steady {
            return (pulse, since.elapsed());
        }
    }
}

fn seconds((pulse, time): (Pulse, Duration)) -> (Pulse, u128) {
    (pulse, time.as_millis().div_ceil(1000))
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_then_left() {
    let mut heartbeat = Heartbeat::start(CLOCKS);
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Ping, 10));
    assert_eq!(
        next(&mut heartbeat).await.0,
        Pulse::Stopped(CloseReason::Silent)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_logs_in_is_left() {
    let mut heartbeat = Heartbeat::start(CLOCKS);
    for _ in 0..11 {
        assert_eq!(next(&mut heartbeat).await.0, Pulse::Ping);
        heartbeat.heard();
    }
    assert_eq!(
        next(&mut heartbeat).await.0,
        Pulse::Stopped(CloseReason::NoLogin)
    );
}

#[tokio::test(start_paused = true)]
async fn what_runs_out_is_told_anew_once_for_each_time() {
    let mut heartbeat = Heartbeat::start(CLOCKS);
    heartbeat.logged_in();
    heartbeat.renews_in(Some(Duration::from_secs(15)));
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Ping, 10));
    heartbeat.heard();
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Renew, 5));
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Ping, 5));
    heartbeat.heard();
    heartbeat.renews_in(None);
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Ping, 10));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_a_minute_before_its_token_ends() {
    let mut heartbeat = Heartbeat::start(Clocks {
        ping_every: Duration::from_hours(2),
        silent_after: Duration::from_hours(3),
        ..CLOCKS
    });
    heartbeat.logged_in();
    heartbeat.token_ends_in(Some(Duration::from_hours(1)));
    let minute = Duration::from_mins(1);
    assert_eq!(
        seconds(next(&mut heartbeat).await),
        (Pulse::TokenExpires(minute), 3540)
    );
    heartbeat.token_ends_in(Some(3 * minute));
    assert_eq!(
        seconds(next(&mut heartbeat).await),
        (Pulse::TokenExpires(minute), 120)
    );
    let ended = Pulse::Stopped(CloseReason::TokenExpired);
    assert_eq!(seconds(next(&mut heartbeat).await), (ended, 60));
}

#[tokio::test(start_paused = true)]
async fn a_doubted_client_has_two_seconds() {
    let mut heartbeat = Heartbeat::start(CLOCKS);
    heartbeat.logged_in();
    heartbeat.doubted();
    heartbeat.heard();
    assert_eq!(next(&mut heartbeat).await.0, Pulse::Ping, "it answered");
    heartbeat.doubted();
    assert_eq!(
        seconds(next(&mut heartbeat).await),
        (Pulse::Stopped(CloseReason::Silent), 2)
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_long_write_is_no_silence() {
    let mut heartbeat = Heartbeat::start(CLOCKS);
    heartbeat.logged_in();
    heartbeat.doubted();
    let wrote = Duration::from_secs(5);
    tokio::time::advance(wrote).await;
    heartbeat.wrote_for(wrote);
    assert_eq!(
        seconds(next(&mut heartbeat).await),
        (Pulse::Stopped(CloseReason::Silent), 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_must_give_the_sign_of_life_of_its_language_whatever_else_it_says() {
    let mut heartbeat = Heartbeat::start(Clocks {
        beats_within: Some(Duration::from_secs(15)),
        ..CLOCKS
    });
    heartbeat.logged_in();
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Ping, 10));
    heartbeat.beaten();
    heartbeat.heard();
    assert_eq!(seconds(next(&mut heartbeat).await), (Pulse::Ping, 10));
    heartbeat.heard();
    assert_eq!(
        seconds(next(&mut heartbeat).await),
        (Pulse::Stopped(CloseReason::Silent), 5)
    );
}
