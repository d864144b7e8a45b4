//! The images of the cluster: pulled, or replaced by stand-ins where no registry can be reached.

use crate::engine::{shipped, succeeds};

/// What the project is to run.
#[derive(Debug, Default)]
pub struct Images {
    /// Services that can be started.
    pub services: Vec<&'static str>,
    /// Settings for the compose file.
    pub settings: Vec<(&'static str, String)>,
    /// The stand-ins, for the report.
    pub stand_ins: Vec<String>,
}

/// Redis, HAProxy and the node are required. `STAND_IN` names an image that contains redis-server and haproxy, for
/// machines that cannot pull them.
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
            // A name of its own, so that nobody takes it for the real image later.
            let name = format!("switchboard-stand-in:{service}");
            // The Redis image has a folder that belongs to its user.
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
