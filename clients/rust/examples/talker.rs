//! Says numbers to somebody, and prints what it hears: talker ADDRESS,… NAME [WHOM COUNT]

#![allow(clippy::print_stdout)]

use std::time::Duration;

use futures_util::future::try_join_all;
use switchboard_client::{Error, Options, Session};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, name, saying @ ..] = arguments.as_slice() else {
        println!("talker ADDRESS,… NAME [WHOM COUNT]");
        return Ok(());
    };
    let addresses: Vec<&str> = addresses.split(',').collect();
    let (session, mut inbox) = Session::open(&addresses, name, Options::default()).await?;
    let id = session.id().unwrap_or_default();
    println!("online {id}");
    if let [whom, count] = saying {
        tokio::spawn(say(
            session.clone(),
            whom.clone(),
            count.parse().unwrap_or(0),
        ));
    }
    loop {
        let message = inbox.next().await?;
        println!("heard {} {} {}", message.kind, message.name, message.body);
    }
}

async fn say(session: Session, whom: String, count: u64) {
    let mut answers = Vec::new();
    for number in 0..count {
        answers.push(tokio::spawn(session.signal("message", &whom, number)));
        sleep(Duration::from_millis(10)).await;
    }
    let answered = try_join_all(answers).await;
    match answered.map(|answers| answers.into_iter().collect::<Result<Vec<_>, _>>()) {
        Ok(Ok(answers)) => println!(
            "answered {} {}",
            answers.len(),
            session.id().unwrap_or_default()
        ),
        trouble => println!("{trouble:?}"),
    }
}
