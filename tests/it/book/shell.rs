//! Shell blocks: run as they are written, but for the ports.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;
use testing::ports::free_address;
use testing::{Client, Node, Process, Redis, eventually, http, node};

use super::{Block, blocks, root};

/// What separates the output of two commands.
const MARK: &str = "\u{1}";

/// A folder with the server binary under its name, for `PATH`.
fn programs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(node::binary(), folder.path().join("switchboard")).unwrap();
    folder
}

/// A text with other ports in the places of the usual ones.
fn ported(text: &str, ports: &[(u16, u16)]) -> String {
    // In two steps, since a port may have the digits of another.
    let placeholder = |usual: u16| format!("\u{2}{}", usual.wrapping_neg());
    let text = ports.iter().fold(text.to_owned(), |text, (usual, _)| {
        text.replace(&usual.to_string(), &placeholder(*usual))
    });
    ports.iter().fold(text, |text, (usual, port)| {
        text.replace(&placeholder(*usual), &port.to_string())
    })
}

fn bash(programs: &Path, script: &str) -> Command {
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(root())
        .env("PATH", format!("{}:{path}", programs.display()));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(at: &str, output: &Output) {
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success(), "{at}:\n{said}\n{printed}");
}

/// The commands of a `console` block, each with the output below it.
fn commands(block: &Block) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in block.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), String::new()));
        } else {
            let (command, output) = commands.last_mut().expect("a block begins with $");
            let into = if goes_on { command } else { output };
            // A line that begins with a space goes on with the line before.
            match line.strip_prefix(' ').filter(|_| !goes_on) {
                Some(rest) => *into = format!("{}{rest}", into.trim_end()),
                None => into.push_str(line),
            }
        }
        goes_on = line.ends_with('\\');
        let (command, output) = commands.last_mut().unwrap();
        if goes_on { command } else { output }.push('\n');
    }
    commands
}

/// Whether a text is as the pattern says, in which `…` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else {
        return pattern == text;
    };
    let (middle, last) = rest.rsplit_once('…').unwrap_or(("", rest));
    let inside = text
        .strip_prefix(first)
        .and_then(|text| text.strip_suffix(last));
    let mut parts = middle.split('…');
    let rest = parts.try_fold(inside.unwrap_or_default(), |rest, part| {
        rest.find(part).map(|at| &rest[at + part.len()..])
    });
    inside.is_some() && rest.is_some()
}

#[tokio::test]
async fn commands_do_what_the_book_shows() {
    let redis = Redis::start().await;
    let node = Node::start(Some(&redis), &[]).await;
    let (port, admin) = (node.address.port(), node.admin.port());
    let programs = programs();
    let here = |text: &str| ported(text, &[(9091, admin), (9090, port)]);
    let mut run = 0;
    for block in blocks() {
        if block.info == "sh" {
            let script = here(&block.text);
            let output = bash(programs.path(), &script).output().unwrap();
            succeeds(&block.at, &output);
            run += 1;
        } else if block.info == "console" {
            let commands = commands(&block);
            let script: Vec<String> = commands
                .iter()
                .map(|(command, _)| format!("printf '{MARK}'\n{command}\n"))
                .collect();
            let output = bash(programs.path(), &here(&script.concat()))
                .output()
                .unwrap();
            succeeds(&block.at, &output);
            let printed = text(&output.stdout);
            let outputs: Vec<&str> = printed.split(MARK).skip(1).collect();
            assert_eq!(outputs.len(), commands.len(), "{}", block.at);
            for ((command, expected), printed) in commands.iter().zip(outputs) {
                let (expected, printed) = (here(expected.trim()), printed.trim());
                let at = &block.at;
                assert!(
                    fits(&expected, printed),
                    "{at}: {command}\nprints\n{printed}\nnot\n{expected}"
                );
            }
            run += 1;
        }
    }
    assert!(run >= 6, "only {run} blocks");
}

/// Each line of the block is a server. Users at the first and at the last node talk.
#[tokio::test]
async fn servers_start_as_the_book_says() {
    let programs = programs();
    let mut started = 0;
    for block in blocks() {
        if block.info != "sh servers" {
            continue;
        }
        started += 1;
        let folder = tempfile::tempdir().unwrap();
        let ports = [6379, 9091, 9090, 9191, 9190];
        let ports = ports.map(|usual| (usual, free_address().unwrap().port()));
        let here = |text: &str| ported(text, &ports);
        let mut servers = Vec::new();
        for line in block.text.lines() {
            let line = line
                .replace("cargo run --release --", "switchboard")
                .replace("cargo run --release", "switchboard")
                .replace("redis-server", "redis-server --save '' --port 6379");
            let path = format!(
                "{}:{}",
                programs.path().display(),
                std::env::var("PATH").unwrap()
            );
            let server = Process::start("bash", |command| {
                command
                    .args(["-c", &format!("exec {}", here(&line))])
                    .current_dir(folder.path())
                    .env("PATH", path)
                    .env("SWITCHBOARD_LISTEN", here("0.0.0.0:9090"))
                    .env("SWITCHBOARD_ADMIN__LISTEN", here("127.0.0.1:9091"));
            });
            servers.push(server.unwrap());
        }
        let has_two = block.text.contains("9190");
        let address = |port: &str| here(&format!("127.0.0.1:{port}")).parse().unwrap();
        let (first, last) = (
            address("9090"),
            address(if has_two { "9190" } else { "9090" }),
        );
        let mut alice = login(first, "alice").await;
        let mut bob = login(last, "bob").await;
        alice
            .send(&json!({"type": "message", "name": "bob", "message": 1}))
            .await;
        assert_eq!(
            bob.receive_type("message").await["message"],
            1,
            "{}",
            block.at
        );
    }
    assert!(started >= 3, "only {started} blocks start servers");
}

async fn login(address: std::net::SocketAddr, name: &str) -> Client {
    eventually(&format!("{name} is logged in at {address}"), async || {
        http::get(address, "/v1/whoami").await?;
        let mut client = Client::connect(address).await;
        let reply = client.try_login(name).await;
        (reply["success"] == true).then_some(client)
    })
    .await
}
