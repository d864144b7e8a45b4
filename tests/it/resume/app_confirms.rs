//! An application confirms what it has: then the pongs of its browser confirm nothing, since a browser answers pings
//! for a page that is frozen or gone.

use std::time::Duration;

use serde_json::json;
use testing::Client;
use tokio::time::sleep;

use super::clusters;

/// Clients are pinged often, so that their pongs would confirm what they were sent.
const PINGS: [(&str, &str); 2] = [
    ("session.ping_every", "100ms"),
    ("session.silent_after", "5s"),
];
/// Several pings and their pongs.
const PONGS: Duration = Duration::from_millis(600);

#[tokio::test]
async fn what_the_application_has_not_confirmed_comes_again() {
    for cluster in clusters(&PINGS).await {
        let mut sender = cluster.login(0, "sender").await;
        for word in ["ack", "ping", "nothing"] {
            let name = format!("confirms-by-{word}");
            let mut client = cluster.login_resumable(0, &name).await;
            let says = async |sender: &mut Client, client: &mut Client, text: &str| {
                sender.send_message(&name, text).await;
                assert_eq!(client.receive_type("message").await["message"], text);
            };
            says(&mut sender, &mut client, "first").await;
            if word != "nothing" {
                let last = client.token.last.clone();
                client.send(&json!({"type": word, "seq": last})).await;
            }
            says(&mut sender, &mut client, "second").await;
            says(&mut sender, &mut client, "third").await;
            // Twice: the next connection knows too.
            for node in [1, 0] {
                sleep(PONGS).await;
                let mut token = client.token.clone();
                token.last = None;
                client.disconnect();
                client = cluster.resume(node, &token).await;
                if word != "nothing" {
                    assert_eq!(client.receive().await["message"], "second");
                    assert_eq!(client.receive().await["message"], "third");
                }
                client.expect_silence().await;
            }
        }
    }
}
