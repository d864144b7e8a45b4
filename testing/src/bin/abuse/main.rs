//! What abuse costs: how many bytes Redis carries for a byte of a client's frame, how much memory a node holds for a
//! byte of a bound, and the p99 of two bystanders during each abuse. `BEFORE=binary` adds a column for another build.
//!
//! The numbers of one machine compare two builds. They are no measure of what a server can take: the abusers run on the
//! same machine.

// A program for a terminal that fails by panicking.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

mod bystanders;
mod costs;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use serde_json::{Value, json};
use testing::node::Launch;
use testing::{Node, Redis};
use tokio::time::timeout;

/// The longest measurement; one that takes longer is not shown.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many connections hold something.
const HOLDERS: usize = 200;
const LARGE: usize = 60_000;

/// Two nodes with a Redis.
struct Rig {
    redis: Redis,
    nodes: [Node; 2],
}

type Measure = fn(Arc<Rig>) -> LocalBoxFuture<'static, f64>;
type Abuse = fn(Arc<Rig>, usize) -> BoxFuture<'static, ()>;

#[tokio::main]
async fn main() {
    let before = std::env::var_os("BEFORE").map(PathBuf::from);
    let subjects: Vec<Option<PathBuf>> = [None].into_iter().chain(before.map(Some)).collect();
    let names = &["now".to_owned(), "before".to_owned()][..subjects.len()];
    for (title, rows) in [
        ("bytes at Redis for a byte of a frame", costs::ratios()),
        ("bytes of memory for a byte of a bound", costs::held()),
    ] {
        println!("\n{}", line(title, names));
        for (what, measure) in rows {
            let mut cells = Vec::new();
            for binary in &subjects {
                cells.push(cell(measured(binary.clone(), measure).await));
            }
            println!("{}", line(what, &cells));
        }
    }
    println!("\n{}", line("p99 of bystanders, in ms", names));
    for (what, abusers, abuse) in bystanders::abuses() {
        let mut cells = Vec::new();
        for binary in &subjects {
            let rig = rig(binary.clone()).await;
            cells.push(cell(finished(bystanders::p99(rig, abusers, abuse)).await));
        }
        println!("{}", line(what, &cells));
    }
}

/// One line of a table.
fn line(what: &str, cells: &[String]) -> String {
    let cells = cells.iter().map(|text| format!(" {text:>10}"));
    format!("{what:<58}{}", cells.collect::<String>())
}

/// A build that cannot do something, such as HTTP sessions, has no number.
fn cell(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"))
}

async fn rig(binary: Option<PathBuf>) -> Arc<Rig> {
    let redis = Redis::start().await;
    let start = async || {
        let mut launch = Launch::new(Some(&redis), &[("limits.signals_per_second", "1000")]);
        launch.binary.clone_from(&binary);
        let node = launch.start().await.expect("a node starts");
        node.becomes_ready().await;
        node
    };
    let nodes = [start().await, start().await];
    Arc::new(Rig { redis, nodes })
}

async fn measured(binary: Option<PathBuf>, measure: Measure) -> Option<f64> {
    finished(measure(rig(binary).await)).await
}

async fn finished(measuring: impl Future<Output = f64>) -> Option<f64> {
    let measuring = AssertUnwindSafe(measuring).catch_unwind();
    timeout(PATIENCE, measuring).await.ok()?.ok()
}

/// A name of 128 bytes.
fn long(number: usize) -> String {
    format!("{}{number:04}", "!".repeat(124))
}

fn watch_all() -> Value {
    let names: Vec<String> = (0..160).map(long).collect();
    json!({"type": "presence", "names": names, "watch": true, "id": "watch"})
}
