//! A real Prometheus of the test's own, which scrapes live nodes often, with the shipped rules.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::process::Process;

/// The folder with the shipped rules.
pub fn rules() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus")
}

pub struct Prometheus {
    address: SocketAddr,
    process: Process,
    _data: TempDir,
}

impl Prometheus {
    pub async fn scraping(nodes: &[SocketAddr]) -> Self {
        for _ in 0..5 {
            if let Some(prometheus) = Self::try_to_scrape(nodes).await {
                return prometheus;
            }
        }
        panic!("prometheus does not start: run `make setup`");
    }

    async fn try_to_scrape(nodes: &[SocketAddr]) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let data = TempDir::with_prefix_in("prometheus", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let targets: Vec<String> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}\n\
             rule_files: [\"{}/switchboard.rules.yml\"]\n\
             scrape_configs: [{{job_name: switchboard, static_configs: [{{targets: [{}]}}]}}]\n",
            rules().display(),
            targets.join(", "),
        );
        let file = data.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                data.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error");
        let mut prometheus = Self {
            address,
            process: Process::spawn(&mut command),
            _data: data,
        };
        let begun = std::time::Instant::now();
        while begun.elapsed() < crate::support::PATIENCE {
            if prometheus.process.has_ended() {
                // Somebody else was given the port meanwhile.
                return None;
            }
            if get(address, "/-/ready")
                .await
                .is_some_and(|answer| answer.contains("Ready"))
            {
                return Some(prometheus);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        None
    }

    /// What an expression amounts to now; the error if it is none.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let encoded =
            percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.asks(&format!("/api/v1/query?query={encoded}")).await;
        if answer["status"] == "success" {
            Ok(answer["data"]["result"].as_array().unwrap().clone())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Every rule, as it is now.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.asks("/api/v1/rules").await;
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap());
        rules.cloned().collect()
    }

    async fn asks(&self, path: &str) -> Value {
        let answer = eventually("Prometheus answers", async || get(self.address, path).await).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }
}

/// By HTTP/1.0, so that the answer comes in one piece.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
