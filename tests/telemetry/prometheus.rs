//! A Prometheus process that scrapes nodes every 250 ms, with the shipped rules.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use tempfile::TempDir;
use testing::{Process, eventually, http};

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
        let process = Process::start("prometheus", |command| {
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    data.path().join("data").display()
                ))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=error");
        });
        let mut prometheus = Self {
            address,
            process: process.unwrap(),
            _data: data,
        };
        let begun = std::time::Instant::now();
        while begun.elapsed() < testing::PATIENCE {
            if prometheus.process.exit_status().is_some() {
                // Another process took the port meanwhile.
                return None;
            }
            let ready = http::get(address, "/-/ready").await;
            if ready.is_some_and(|response| response.body.contains("Ready")) {
                return Some(prometheus);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        None
    }

    /// The current value of an expression; the error if it is invalid.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let encoded =
            percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).await;
        if answer["status"] == "success" {
            Ok(answer["data"]["result"].as_array().unwrap().clone())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Every rule with its current state.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules").await;
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap());
        rules.cloned().collect()
    }

    async fn get(&self, path: &str) -> Value {
        let get = async || http::get(self.address, path).await;
        eventually("Prometheus answers", get).await.json()
    }
}
