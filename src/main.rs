//! The process: arguments, configuration, telemetry, runtime, exit code.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{Parser, Subcommand};
use switchboard::app::{App, StartError};
use switchboard::config::{Config, Sources};
use switchboard::model::NodeId;
use switchboard::revoke::Tokens;
use switchboard::telemetry::Telemetry;
use switchboard::transport::Tls;
use switchboard::{healthcheck, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Exit code for wrong arguments (`EX_USAGE` of sysexits.h).
const EX_USAGE: u8 = 64;
/// Exit code for a wrong setting (`EX_CONFIG`).
const EX_CONFIG: u8 = 78;
/// Exit code if something that the node needs is missing (`EX_UNAVAILABLE`).
const EX_UNAVAILABLE: u8 = 69;

/// Time limit for exporting the last spans and metrics.
const LAST_EXPORT_WITHIN: Duration = Duration::from_secs(3);

/// A WebRTC signalling server that scales out.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// A TOML file with settings
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Address for clients [listen]
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<String>,
    /// Address for operators: probes, status and metrics [admin.listen]
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin_listen: Option<String>,
    /// Name of this node in logs and replies [`node_id`]
    #[arg(long, value_name = "NAME", global = true)]
    node_id: Option<String>,
    /// Redis that connects the nodes [redis.url]
    #[arg(long, value_name = "URL", global = true)]
    redis_url: Option<String>,
    /// Any other setting, such as drain.window=10s
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = parse_setting)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the settings without starting
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Exit with 0 if the node at admin.listen is ready; for containers without a shell
    Healthcheck,
    /// Revoke tokens in the whole cluster; the key is that of the admin API
    Revoke(Box<Tokens>),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective settings and where each comes from, secrets hidden; exit with 78 if there are mistakes
    Check,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Arguments {
    fn sources(self) -> Sources {
        let named = [
            ("listen", self.listen),
            ("admin.listen", self.admin_listen),
            ("node_id", self.node_id),
            ("redis.url", self.redis_url),
        ];
        let named = named
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Sources {
            file: self.config,
            environment: std::env::vars_os()
                .filter_map(|(key, value)| {
                    // What is not UTF-8 is refused, if it is a setting.
                    Some((
                        key.into_string().ok()?,
                        value.to_string_lossy().into_owned(),
                    ))
                })
                .collect(),
            flags: named.chain(self.set).collect(),
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap also returns --help and --version as errors.
            let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string);
            let is_setting = argument.is_some_and(|argument| argument.starts_with("--set"));
            if is_setting && error.kind() == ErrorKind::ValueValidation {
                // It would repeat the value, which may contain a password.
                eprintln!("--set needs KEY=VALUE, such as drain.window=10s");
            } else {
                let _ = error.print();
            }
            return ExitCode::from(if error.use_stderr() { EX_USAGE } else { 0 });
        }
    };
    let command = arguments.command.take();
    let (effective, checked) = Config::check(arguments.sources());
    if matches!(command, Some(Command::Config(ConfigCommand::Check))) {
        // It fails if nobody reads it, as behind `head`.
        let _ = std::io::stdout().write_all(effective.as_bytes());
    }
    let config = match checked {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    match command {
        Some(Command::Config(ConfigCommand::Check)) => check(config),
        Some(Command::Healthcheck) => block_on(1, async move {
            match healthcheck::ask(config.admin_listen).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }),
        Some(Command::Revoke(tokens)) => block_on(1, revoke(config, tokens)),
        None => block_on(config.workers, async move {
            let node = NodeId::start(&config.node_id);
            let (telemetry, running, log) = match telemetry::start(&config.telemetry, &node) {
                Ok(started) => started,
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::from(EX_CONFIG);
                }
            };
            let code = serve(config, node, telemetry).await;
            // `stop` blocks, and the exporters need this runtime meanwhile.
            let stop = tokio::task::spawn_blocking(|| running.stop());
            let _ = timeout(LAST_EXPORT_WITHIN, stop).await;
            log.finish();
            code
        }),
    }
}

async fn revoke(config: Config, tokens: Box<Tokens>) -> ExitCode {
    let revoking = tokens.revoke(config.admin_listen, config.admin_token.as_ref());
    match revoking.await {
        Ok(sessions) => {
            let _ = writeln!(std::io::stdout(), "Revoked; sessions ended: {sessions}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What can be found without starting, in a configuration without mistakes.
fn check(config: Config) -> ExitCode {
    for ignored in &config.telemetry.ignored {
        eprintln!("Not supported, and without effect: {ignored}");
    }
    if let Some(Err(error)) = config.tls.map(Tls::load) {
        eprintln!("{error}");
        return ExitCode::from(EX_CONFIG);
    }
    ExitCode::SUCCESS
}

fn block_on(workers: usize, running: impl Future<Output = ExitCode>) -> ExitCode {
    let half = || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let workers = if workers == 0 { half() } else { workers };
    match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(running);
            // Only an export to a collector that does not answer can still be running.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!(
                "Cannot start the async runtime: {error}. Check the limits for threads and open files \
                 (ulimit -u, ulimit -n)"
            );
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

async fn serve(config: Config, node: NodeId, telemetry: Telemetry) -> ExitCode {
    let app = match App::build_as(node, &config, telemetry) {
        Ok(app) => app,
        Err(error) => {
            error!("{error}");
            let wrong_setting = matches!(
                error,
                StartError::Tls(_) | StartError::Auth(_) | StartError::Redis(_)
            );
            return ExitCode::from(if wrong_setting {
                EX_CONFIG
            } else {
                EX_UNAVAILABLE
            });
        }
    };
    let address = |bound: std::io::Result<std::net::SocketAddr>| {
        bound.map(|bound| bound.to_string()).unwrap_or_default()
    };
    let (listen, admin) = (address(app.local_addr()), address(app.admin_addr()));
    let version = env!("CARGO_PKG_VERSION");
    info!(node.id = %app.node(), listen, admin, "Switchboard {version} is listening");
    let stop = CancellationToken::new();
    let run = app.run(stop.clone());
    let signals = async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return std::future::pending().await;
        };
        let mut wait = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        wait().await;
        stop.cancel();
        wait().await;
    };
    tokio::select! {
        drained = run => {
            info!("Stopped");
            if drained { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        () = signals => {
            error!("Stopped by a second signal before the drain was complete; clients reconnect without notice");
            ExitCode::FAILURE
        }
    }
}
