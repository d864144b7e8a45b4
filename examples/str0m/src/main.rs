//! A robot that takes calls, and echoes what comes by a data channel: cargo run -- ws://localhost:9090 robot [whom]

mod peer;

use switchboard_client::{Calls, Error, Event, Options, Session};

use crate::peer::Str0mPeer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, name, whom @ ..] = arguments.as_slice() else {
        println!("robot ADDRESS,… NAME [WHOM]");
        return Ok(());
    };
    let addresses: Vec<&str> = addresses.split(',').collect();
    let (session, inbox) = Session::open(&addresses, name, Options::default()).await?;
    let mut calls = Calls::new(session, inbox, |_, connected| {
        Str0mPeer::new(name, connected)
    });
    println!("I am {name}");
    if let [whom] = whom {
        calls.call(whom).await?;
    }
    loop {
        let happening = calls.wait().await?;
        for event in calls.handle(happening).await {
            match event {
                Event::Ringing(caller) => {
                    println!("{caller} calls");
                    // A call that cannot be taken is over, which is told below.
                    drop(calls.accept(&caller).await);
                }
                Event::Ended(peer, reason) => println!("{peer} is gone: {reason}"),
                Event::Connected(_) | Event::Message(_) => {}
            }
        }
    }
}
