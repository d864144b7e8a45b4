//! The images that the cluster is made of: pulled, or stood in for where no registry is at hand.

use crate::engine::{shipped, succeeds};

/// What the project is to run.
#[derive(Debug, Default)]
pub struct Images {
    /// Services that can be started.
    pub services: Vec<&'static str>,
    /// Settings for the compose file.
    pub settings: Vec<(&'static str, String)>,
    /// What is not the real thing, for the report.
    pub stand_ins: Vec<String>,
}

/// Whatever carries calls has to be there; `STAND_IN` names an image with redis-server and haproxy in it, for where they cannot be pulled.
pub fn gather() -> Images {
    let mut images = Images::default();
    let shipped = shipped();
    for (service, setting) in [("redis", "REDIS_IMAGE"), ("front", "HAPROXY_IMAGE")] {
        let image = &shipped[setting];
        if !is_there(image) {
            let stand_in = std::env::var("STAND_IN").unwrap_or_default();
            assert!(
                !stand_in.is_empty(),
                "{image} cannot be pulled, and STAND_IN is not set"
            );
            // Under a name of its own: the engine's next user is not to take it for the real one.
            let name = format!("switchboard-stand-in:{service}");
            // Redis' image has a folder of the user that it runs as.
            let lines = format!("FROM {stand_in}\\nRUN mkdir -p /data && chown 999:1000 /data\\n");
            assert!(
                succeeds(&format!("printf '{lines}' | docker build -q -t {name} -")),
                "{stand_in} cannot be built upon"
            );
            images.stand_ins.push(format!("{image} by {stand_in}"));
            images.settings.push((setting, name));
        }
        images.services.push(service);
    }
    images.services.push("node");
    let (builder, runtime) = (&shipped["BUILDER_IMAGE"], &shipped["RUNTIME_IMAGE"]);
    if !is_there(builder) {
        let built = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/switchboard");
        assert!(
            built.exists(),
            "{builder} cannot be pulled, and there is no dist/switchboard: make dist"
        );
        images.settings.push(("BINARY", "prebuilt".to_owned()));
        images
            .stand_ins
            .push(format!("{builder} by the binary of `make dist`"));
    }
    if !is_there(runtime) {
        images
            .settings
            .push(("RUNTIME_IMAGE", "scratch".to_owned()));
        images.stand_ins.push(format!("{runtime} by scratch"));
    }
    for (service, setting) in [
        ("jaeger", "JAEGER_IMAGE"),
        ("prometheus", "PROMETHEUS_IMAGE"),
        ("grafana", "GRAFANA_IMAGE"),
    ] {
        let image = &shipped[setting];
        if is_there(image) {
            images.services.push(service);
        } else {
            images
                .stand_ins
                .push(format!("{image} by nothing: not started"));
        }
    }
    images
}

fn is_there(image: &str) -> bool {
    let there = format!("docker image inspect {image}");
    succeeds(&there) || succeeds(&format!("timeout 300 docker pull -q {image}"))
}
