//! The Docker engine of this machine, and the compose project that the test runs on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// A compose project with the shipped file. It is removed with its volumes when this value is dropped.
#[derive(Debug)]
pub struct Project {
    environment: BTreeMap<String, String>,
    /// The port that clients connect to.
    pub front: SocketAddr,
    /// HAProxy's statistics page.
    pub operators: SocketAddr,
}

impl Project {
    /// A project with a name and ports of its own, so that a cluster that already runs here is not touched.
    pub fn new(settings: &[(&str, String)]) -> Self {
        let [front, operators, jaeger, grafana, prometheus] = [(); 5].map(|()| free());
        let mut environment: BTreeMap<String, String> = [
            ("COMPOSE_PROJECT_NAME", "switchboard-test".to_owned()),
            ("SWITCHBOARD_IMAGE", "switchboard:test".to_owned()),
            ("FRONT_PORT", front.port().to_string()),
            ("HAPROXY_STATS_PORT", operators.port().to_string()),
            ("JAEGER_PORT", jaeger.port().to_string()),
            ("GRAFANA_PORT", grafana.port().to_string()),
            ("PROMETHEUS_PORT", prometheus.port().to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let settings = settings.iter();
        environment.extend(settings.map(|(key, value)| ((*key).to_owned(), value.clone())));
        Self {
            environment,
            front,
            operators,
        }
    }

    /// Runs `docker compose` with these arguments.
    pub async fn compose(&self, words: &str) -> String {
        self.run(&format!("docker compose {words}")).await
    }

    /// Runs a shell command in the project's environment; its output.
    pub async fn run(&self, command: &str) -> String {
        let environment = self.environment.clone();
        let command = command.to_owned();
        let running = tokio::task::spawn_blocking(move || {
            let output = shell(&command).envs(&environment).output().unwrap();
            let (reply, trouble) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{command}\n{reply}\n{trouble}");
            reply
        });
        running.await.unwrap()
    }

    /// The running containers of a service.
    pub async fn containers(&self, service: &str) -> Vec<String> {
        let reply = self.compose(&format!("ps -q {service}")).await;
        reply.lines().map(str::to_owned).collect()
    }

    /// The container of the node with this id.
    pub async fn container_of(&self, node: &str) -> String {
        for container in self.containers("node").await {
            let log = self.run(&format!("docker logs {container} 2>&1")).await;
            if log.contains(&format!("\"node.id\":\"{node}\"")) {
                return container;
            }
        }
        panic!("no container runs {node}");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut logs = shell("docker compose ps -a; docker compose logs --tail 40");
            let output = logs.envs(&self.environment).output().unwrap();
            eprintln!("{}{}", text(&output.stdout), text(&output.stderr));
        }
        let down = "docker compose down --volumes --timeout 5 --remove-orphans";
        let _ = shell(down).envs(&self.environment).output();
    }
}

/// The settings of the shipped `.env`.
pub fn shipped() -> BTreeMap<String, String> {
    include_str!("../../.env")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The address of this machine for containers.
pub fn gateway() -> String {
    let asked = "docker network inspect bridge --format '{{with index .IPAM.Config 0}}{{or .Gateway .Subnet}}{{end}}'";
    let output = shell(asked).output().unwrap();
    let known = text(&output.stdout).trim().to_owned();
    // Docker 20 does not tell the gateway, which is the first address of the network.
    match known.strip_suffix(".0/16") {
        Some(network) => format!("{network}.1"),
        None => known,
    }
}

/// Whether a shell command succeeds.
pub fn succeeds(command: &str) -> bool {
    let mut command = shell(command);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", command]);
    shell
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    shell
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
