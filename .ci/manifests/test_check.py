#!/usr/bin/env python3
"""Plants typos in a copy of the manifests, and checks that the checker reports each by name."""

import shutil
import sys
import tempfile
from pathlib import Path

import check

TOP = Path(__file__).resolve().parents[2]

# file in deploy/k8s, the text there, its replacement, what must be reported
TYPOS = [
    ("base/deployment.yaml", "readOnlyRootFilesystem", "readOnlyRootFileSystem", "readOnlyRootFileSystem"),
    ("base/deployment.yaml", "minReadySeconds: 30", 'minReadySeconds: "5"', "minReadySeconds"),
    ("base/disruption.yaml", "kind: PodDisruptionBudget", "kind: PodDisruptionBudgte", "has no schema for it"),
    ("base/deployment.yaml", "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds 30"),
    ("base/deployment.yaml", "              port: admin", "              port: adnim", "adnim"),
    ("base/deployment.yaml", "name: POD_UID", "name: POD_UDI", "$(POD_UID)"),
    ("base/deployment.yaml", "secretName: switchboard-secrets", "secretName: switchboard-secret", "there is no Secret switchboard-secret"),
    ("base/services.yaml", "targetPort: ws", "targetPort: sw", "port sw is none"),
    ("base/services.yaml", "  selector:\n    app.kubernetes.io/name: switchboard", "  selector:\n    app.kubernetes.io/name: switchbord", "takes no pods"),
    ("base/disruption.yaml", "unhealthyPodEvictionPolicy", "unhealthyPodEvictonPolicy", "unhealthyPodEvictonPolicy"),
    ("base/disruption.yaml", "name: switchboard\n", "name: switchbord\n", "PodDisruptionBudget"),
    ("base/network.yaml", "        - port: 53\n          protocol: UDP\n        - port: 53\n          protocol: TCP", "        - port: 35", "without port 53"),
    ("base/kustomization.yaml", "SWITCHBOARD_DRAIN__DEADLINE", "SWITCHBOARD_DRAIN__DEADLNE", "SWITCHBOARD_DRAIN__DEADLNE is not a setting"),
    ("overlays/dev/redis.yaml", "serviceName: redis-pods", "serviceName: rdis", "there is no Service rdis"),
    ("overlays/dev/jaeger.yaml", "containerPort: 16686", "containerport: 16686", "containerPort"),
    ("overlays/prod/kustomization.yaml", "../../components/hpa", "../../components/hap", "overlays/prod"),
    ("components/hpa/autoscaler.yaml", "    kind: Deployment\n    name: switchboard", "    kind: Deployment\n    name: switchbord", "there is no Deployment switchbord"),
    ("components/hpa/autoscaler.yaml", "stabilizationWindowSeconds: 900", "stabilisationWindowSeconds: 900", "stabilisationWindowSeconds"),
    ("components/keda/scaledobject.yaml", "minReplicaCount", "minReplicasCount", "minReplicasCount"),
    ("components/servicemonitor/servicemonitor.yaml", "port: admin", "port: metrics", "no port metrics"),
    ("components/servicemonitor/servicemonitor.yaml", "  jobLabel: app.kubernetes.io/part-of\n", "", "the job is switchboard-admin"),
    ("components/alerts/prometheusrule.yaml", "for: 1m", "for: 2m", "differs from deploy/prometheus/switchboard.rules.yml"),
    ("components/certificate/certificate.yaml", "rotationPolicy", "rotationpolicy", "rotationpolicy"),
    ("components/certificate/certificate.yaml", "secretName: switchboard-tls", "secretName: switchboard-tsl", "nothing uses the Secret"),
    ("components/gateway-tls/gateway.yaml", "        mode: Terminate", "        mod: Terminate", "mod"),
    ("components/gateway-tls/gateway.yaml", "name: switchboard-tls", "name: switchboard-tsl", "there is no Secret switchboard-tsl"),
    ("components/gateway-tls/gateway.yaml", "sectionName: http", "sectionName: htp", "with a listener htp"),
    ("components/gateway-tls/gateway.yaml", "hostname: signal.example.org", "hostname: signal.example.com", "the listener's is signal.example.com"),
    ("components/gateway-tls/gateway.yaml", "scheme: https", "scheme: wss", "wss"),
    ("components/userns/kustomization.yaml", "hostUsers", "hostusers", "hostusers"),
    ("components/priority/priority.yaml", "name: switchboard", "name: switchbord", "there is no PriorityClass switchboard"),
    ("demo/job.yaml", "backoffLimit", "backofLimit", "backofLimit"),
    ("demo/job.yaml", "            name: demo-call", "            name: demo-cal", "there is no ConfigMap demo-cal"),
    ("components/gateway/httproute.yaml", "port: 9090", "port: 9009", "no port 9009"),
    ("components/gateway/httproute.yaml", "type: PathPrefix", "type: Exact", "/v1/whoami"),
    ("components/gateway/httproute.yaml", "value: /", "value: /v1", "/client/switchboard.js"),
    ("components/gateway/httproute.yaml", "name: switchboard\n          port: 9090", "name: switchboard-admin\n          port: 9091",
     "leads to admin"),
    ("components/ingress/ingress.yaml", "pathType: Prefix", "pathtype: Prefix", "pathType"),
    ("components/ingress/ingress.yaml", "pathType: Prefix", "pathType: Exact", "/v1/whoami"),
    ("components/ingress/ingress.yaml", "path: /", "path: /page", "/doctor/verdict.js"),
    ("components/ingress/ingress.yaml", "name: switchboard\n                port:\n                  name: ws",
     "name: switchboard-admin\n                port:\n                  name: admin", "leads to admin"),
    ("../../.env", "jaeger:2.20.0", "jaeger:2.21.0", "docker-compose.yml: jaegertracing/jaeger:2.21.0 does not fit"),
    ("../../.env", "grafana:12.4.11", "grafana:12.1.1", "docker-compose.yml: grafana/grafana:12.1.1 does not fit"),
    ("../../.env", "grafana:12.4.11", "grafana:latest", "docker-compose.yml: grafana/grafana:latest does not fit"),
    ("../../.env", "redis:7.4-alpine", "redis:7.2-alpine", "redis:7.4-alpine is not the version of .env, 7.2-alpine"),
    ("../../.env", "rust:1.91-bookworm", "rust:1.92-bookworm", "but rust:1.91-bookworm in the Dockerfile"),
    ("overlays/dev/jaeger.yaml", "jaeger:2.20.0", "jaeger:2.19.0", "jaegertracing/jaeger:2.19.0 is not the version of .env, 2.20.0"),
    ("overlays/dev/jaeger.yaml", "jaeger:2.20.0", "jaeger:2.21.0", "Deployment jaeger: jaegertracing/jaeger:2.21.0 does not fit"),
    ("../../src/transport/http/routes.rs", '"/v1/events"', "EVENTS", "route(EVENTS) cannot be read"),
    ("../../src/transport/mod.rs", '.route("/ws"', '.path("/ws"', "the routes /ws are not found"),
]


def plant(typo):
    """The failure of the checker with a typo; None if it reports the typo."""
    file, right, wrong, word = typo
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for part in ("deploy", "src/config", "src/transport"):
            shutil.copytree(TOP / part, top / part)
        for part in ("docker-compose.yml", ".env"):
            shutil.copy(TOP / part, top / part)
        path = top / "deploy/k8s" / file
        text = path.read_text()
        if right not in text:
            return f"{file} has no {right!r}"
        path.write_text(text.replace(right, wrong))
        # dev contains everything that the base has.
        folder, name, *_ = file.split("/")
        told = "\n".join(check.mistakes(top, f"{folder}/{name}" if folder in ("overlays", "components") else "demo" if folder == "demo" else "overlays/dev"))
    if word not in told:
        return f"{wrong!r} in {file} is not noticed as {word!r}:\n{told}"
    return None


def main():
    untouched = check.mistakes(TOP)
    if untouched:
        print("\n".join(untouched), file=sys.stderr)
        return 1
    missed = [trouble for trouble in map(plant, TYPOS) if trouble]
    print("\n".join(missed) or f"{len(TYPOS)} typos were planted, and each was noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
