#!/usr/bin/env python3
"""Checks the deployment files, without a cluster and without a container engine.

Kubernetes: kustomize builds every overlay, and every component on the base. Each object is validated strictly against
the schemas of several Kubernetes versions; a kind without a schema is a mistake. Objects must fit each other:
selectors, ports, references, targets, grace periods, settings, restricted pod security. Every route that the server
has for clients must pass an HTTPRoute and an Ingress. Compose: variables, settings, grace period. Images: the same
versions everywhere, and compatible ones.
"""

import functools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = ["1.30", "1.32", "1.34", kubernetes_validate.latest_version()]
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").glob("*.json")}
# Secrets that the operator creates; the README line of prod says how.
EXTERNAL_SECRETS = {"switchboard-redis", "switchboard-secrets", "switchboard-tls", "switchboard-turn"}
# After drain.deadline a node still has this many seconds to close its sessions in Redis (FABRIC_WITHIN in app.rs).
LAST_WORDS = 5
# The first compatible version, and the first that is not. Grafana's Jaeger data source is broken in 12.1
# (grafana/grafana#108651); it uses /api/..., which Jaeger removed in 2.21.
FITTING = {"grafana/grafana": ((12, 2), None), "jaegertracing/jaeger": ((2,), (2, 21))}


def main():
    found = mistakes(Path(__file__).resolve().parents[2])
    for mistake in found:
        print(mistake, file=sys.stderr)
    if not found:
        print(f"deploy/k8s is valid for Kubernetes {', '.join(VERSIONS)}, and its objects fit each other")
    return 1 if found else 0


def mistakes(top, only=None):
    """The mistakes below this folder; with `only`, such as overlays/dev, those of one overlay."""
    found = []
    settings = known_settings(top)
    routes = public_routes(top, settings, found)
    images = pinned_images(top)
    for name, objects in renders(top, only, found):
        found += [f"{name}: {mistake}" for mistake in check_objects(objects, settings, routes, images)]
        found += [f"{name}: {mistake}" for mistake in check_rules(objects, top)]
    return found + [f"docker-compose.yml: {mistake}" for mistake in check_compose(top, settings, images)]


def known_settings(top):
    """Every setting with its default, by the name of its environment variable."""
    def visit(prefix, table):
        for key, value in table.items():
            if isinstance(value, dict):
                yield from visit(f"{prefix}{key.upper()}__", value)
            else:
                yield f"{prefix}{key.upper()}", value
    return dict(visit("SWITCHBOARD_", tomllib.loads((top / "src/config/default.toml").read_text())))


def public_routes(top, settings, found):
    """A path of every route of the public listener, from the source in src/transport. The admin routes are in ops.rs and admin/."""
    routes = set()
    for source in sorted((top / "src/transport").rglob("*.rs")):
        if source.name == "ops.rs" or source.parent.name == "admin":
            continue
        text = source.read_text()
        for argument in re.findall(r'\.route\(\s*(&format!\("[^"]*"\)|"[^"]*"|[^,]*)', text):
            if literal := re.search('"(.*)"', argument):
                # PeerJS' routes begin with peerjs.path, and format! doubles the braces of a parameter.
                path = literal[1].replace("{base}", settings["SWITCHBOARD_PEERJS__PATH"]).replace("{{", "{").replace("}}", "}")
                routes.add(re.sub(r"\{[^}]+\}", "any", path))
            elif source.name == "pages.rs":
                routes |= {f"/{part}" for part in re.findall(r'^    [A-Z]+ "([^"]+)",$', text, re.MULTILINE)}
            elif source.name == "peerjs.rs":
                routes.add(settings["SWITCHBOARD_PEERJS__PATH"])
            else:
                found.append(f"{source.relative_to(top)}: route({argument}) cannot be read")
    if missing := {"/", "/ws", "/doctor", "/page.js", "/client/switchboard.js", "/v1/sessions", "/peerjs"} - routes:
        found.append(f"src/transport: the routes {shown(missing)} are not found")
    return sorted(routes)


def renders(top, only, found):
    """Builds every overlay, and every component on the base."""
    k8s = top / "deploy/k8s"
    ways = [(f"overlays/{overlay.name}", overlay) for overlay in sorted((k8s / "overlays").iterdir())]
    with tempfile.TemporaryDirectory(dir=k8s) as folder:
        for component in sorted((k8s / "components").iterdir()):
            way = Path(folder) / component.name
            way.mkdir()
            text = f"resources: [../../base]\ncomponents: [../../components/{component.name}]\n"
            (way / "kustomization.yaml").write_text(text)
            ways.append((f"components/{component.name}", way))
        ways.append(("demo", k8s / "demo"))
        for name, way in ways:
            if only not in (None, name):
                continue
            built = subprocess.run(["kubectl", "kustomize", str(way)], capture_output=True, text=True)
            if built.returncode:
                found.append(f"{name}: {built.stderr.strip()}")
            else:
                yield name, [object for object in yaml.safe_load_all(built.stdout) if object]


def check_objects(objects, settings, routes, images):
    for object in objects:
        for mistake in check_schema(json.dumps(object)):
            yield f"{describe(object)}: {mistake}"
    try:
        yield from Cluster(objects, settings, routes, images).mistakes()
    except (KeyError, TypeError, AttributeError) as error:
        yield f"its objects cannot be read: {error!r}"


@functools.cache
def check_schema(text):
    """Most objects are equal in all builds: each is validated once."""
    return list(schema_mistakes(json.loads(text)))


def schema_mistakes(object):
    if object["kind"] in SCHEMAS:
        validator = jsonschema.Draft202012Validator(SCHEMAS[object["kind"]])
        for error in validator.iter_errors(object):
            yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(object, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            yield f"Kubernetes {version} has no schema for it: {error}"


def check_rules(objects, top):
    """Checks that the Prometheus operator gets the rules that Prometheus gets elsewhere."""
    rules = yaml.safe_load((top / "deploy/prometheus/switchboard.rules.yml").read_text())
    for object in objects:
        if object["kind"] == "PrometheusRule" and object["spec"] != rules:
            yield f"{describe(object)} differs from deploy/prometheus/switchboard.rules.yml: make reference"


def describe(object):
    return f"{object['kind']} {object['metadata']['name']}"


def fits(selector, labels):
    """Whether a label selector (without expressions) matches these labels."""
    return selector.get("matchLabels", {}).items() <= labels.items()


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)?", str(text)).groups()
    return int(number) * {"ms": 0.001, "m": 60}.get(unit, 1)


class Cluster:
    """The objects of one build."""

    def __init__(self, objects, settings, routes, images):
        self.settings = settings
        self.routes = routes
        self.images = images
        self.by_kind = {}
        for object in objects:
            self.by_kind.setdefault(object["kind"], {})[object["metadata"]["name"]] = object
        self.workloads = [*self.all("Deployment"), *self.all("StatefulSet"), *self.all("Job")]

    def all(self, kind):
        return self.by_kind.get(kind, {}).values()

    def has(self, kind, name):
        return name in self.by_kind.get(kind, {})

    def pods(self, selector):
        """The pod templates that a selector matches."""
        templates = [workload["spec"]["template"] for workload in self.workloads]
        return [template for template in templates if fits(selector, template["metadata"]["labels"])]

    def mistakes(self):
        checks = [
            self.check_workload, self.check_pod_security, self.check_references, self.check_settings, self.check_grace,
            self.check_images,
        ]
        for workload in self.workloads:
            for check in checks:
                for mistake in check(workload):
                    yield f"{describe(workload)}: {mistake}"
        by_kind = {
            "Service": self.check_service, "PodDisruptionBudget": self.check_budget, "NetworkPolicy": self.check_policy,
            "HorizontalPodAutoscaler": self.check_scaler, "ScaledObject": self.check_scaler, "Ingress": self.check_ingress,
            "HTTPRoute": self.check_route, "ServiceMonitor": self.check_monitor, "Gateway": self.check_gateway, "Certificate": self.check_certificate,
        }
        for kind, check in by_kind.items():
            for object in self.all(kind):
                for mistake in check(object):
                    yield f"{describe(object)}: {mistake}"

    def check_workload(self, workload):
        template, spec = workload["spec"]["template"], workload["spec"]["template"]["spec"]
        labels = template["metadata"]["labels"]
        if workload["kind"] != "Job" and not fits(workload["spec"]["selector"], labels):
            yield f"its selector does not take its own pods ({labels})"
        for spread in spec.get("topologySpreadConstraints", []):
            if not fits(spread["labelSelector"], labels):
                yield f"the spread over {spread['topologyKey']} does not count its own pods"
        if workload["kind"] == "StatefulSet" and not self.has("Service", workload["spec"]["serviceName"]):
            yield f"there is no Service {workload['spec']['serviceName']}"
        for container in spec["containers"]:
            ports = port_names(template)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port is not None and port not in ports:
                    yield f"{probe} asks port {port}, which the pod does not have ({shown(ports)})"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{container['name']} has no memory limit"

    def check_pod_security(self, workload):
        """Checks the restricted level of the pod security standards."""
        spec = workload["spec"]["template"]["spec"]
        pod = spec.get("securityContext", {})
        for container in spec["containers"]:
            own = container.get("securityContext", {})
            wanted = {
                "runAsNonRoot": {**pod, **own}.get("runAsNonRoot") is True,
                "seccompProfile": {**pod, **own}.get("seccompProfile", {}).get("type") == "RuntimeDefault",
                "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
                "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"],
                "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            }
            for field, is_so in wanted.items():
                if not is_so:
                    yield f"{container['name']} is not restricted: {field}"

    def check_references(self, workload):
        spec = workload["spec"]["template"]["spec"]
        priority = spec.get("priorityClassName")
        if priority and not self.has("PriorityClass", priority):
            yield f"there is no PriorityClass {priority}"
        for volume in spec.get("volumes", []):
            if "configMap" in volume and not self.has("ConfigMap", volume["configMap"]["name"]):
                yield f"there is no ConfigMap {volume['configMap']['name']}"
            if "secret" in volume and volume["secret"]["secretName"] not in EXTERNAL_SECRETS:
                yield f"there is no Secret {volume['secret']['secretName']}"
        account = spec.get("serviceAccountName", "default")
        if account != "default" and not self.has("ServiceAccount", account):
            yield f"there is no ServiceAccount {account}"
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                name = source["configMapRef"]["name"]
                if not self.has("ConfigMap", name):
                    yield f"there is no ConfigMap {name}"
            seen = set()
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    secret = self.by_kind.get("Secret", {}).get(reference["name"])
                    if secret is None and reference["name"] not in EXTERNAL_SECRETS:
                        yield f"there is no Secret {reference['name']}"
                    if secret and reference["key"] not in {**secret.get("data", {}), **secret.get("stringData", {})}:
                        yield f"Secret {reference['name']} has no key {reference['key']}"
                for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                    if used not in seen:
                        yield f"{variable['name']} uses $({used}), which is not declared before it"
                seen.add(variable["name"])

    def variables(self, container):
        """The environment variables of a container, with their values where these are known."""
        given = {}
        for source in container.get("envFrom", []):
            config = self.by_kind.get("ConfigMap", {}).get(source["configMapRef"]["name"], {})
            given.update(config.get("data", {}))
        given.update({variable["name"]: variable.get("value") for variable in container.get("env", [])})
        return given

    def check_settings(self, workload):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            for variable in self.variables(container):
                if variable.startswith("SWITCHBOARD_") and variable not in self.settings:
                    yield f"{variable} is not a setting"

    def check_grace(self, workload):
        spec = workload["spec"]["template"]["spec"]
        for container in spec["containers"]:
            given = self.variables(container)
            if not any(variable.startswith("SWITCHBOARD_") for variable in given):
                continue
            deadline = given.get("SWITCHBOARD_DRAIN__DEADLINE", self.settings["SWITCHBOARD_DRAIN__DEADLINE"])
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            needed, grace = pause + seconds(deadline) + LAST_WORDS, spec.get("terminationGracePeriodSeconds", 30)
            if pause == 0:
                yield "without a preStop sleep it drains before load balancers know"
            if grace <= needed:
                yield f"terminationGracePeriodSeconds {grace} is not more than preStop, drain.deadline and {LAST_WORDS} s: {needed:g}"

    def check_images(self, workload):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            name, tag = split_image(container["image"])
            if self.images.get(name, tag) != tag:
                yield f"{container['image']} is not the version of .env, {self.images[name]}"
            yield from check_version(name, tag)

    def check_service(self, service):
        pods = self.pods({"matchLabels": service["spec"]["selector"]})
        if not pods:
            yield f"its selector takes no pods: {service['spec']['selector']}"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in pods:
                if target not in port_names(pod):
                    yield f"port {target} is none of its pods' ({shown(port_names(pod))})"

    def check_budget(self, budget):
        if not self.pods(budget["spec"]["selector"]):
            yield "its selector takes no pods"

    def check_policy(self, policy):
        pods = self.pods(policy["spec"]["podSelector"])
        if not pods:
            yield "its selector takes no pods"
        named = {port for pod in pods for port in port_names(pod) if isinstance(port, str)}
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                if isinstance(port["port"], str) and port["port"] not in named:
                    yield f"port {port['port']} is none of its pods' ({shown(named)})"
            for peer in rule.get("from", []):
                if "podSelector" in peer and "namespaceSelector" not in peer and not self.pods(peer["podSelector"]):
                    yield f"it lets in pods that are not there: {peer['podSelector']}"
        egress = policy["spec"].get("egress", [])
        if egress and not any(port["port"] == 53 for rule in egress for port in rule.get("ports", [])):
            yield "without port 53 nothing finds anything"

    def check_scaler(self, scaler):
        target = scaler["spec"]["scaleTargetRef"]
        kind = target.get("kind", "Deployment")
        if not self.has(kind, target["name"]):
            yield f"there is no {kind} {target['name']}"
        elif "replicas" in self.by_kind[kind][target["name"]]["spec"]:
            yield f"{kind} {target['name']} says how many replicas it has: both would set it"

    def backend(self, name, port):
        service = self.by_kind.get("Service", {}).get(name)
        if service is None:
            yield f"there is no Service {name}"
        elif not any(port in (each["port"], each.get("name")) for each in service["spec"]["ports"]):
            yield f"Service {name} has no port {port}"

    def check_ingress(self, ingress):
        matches = []
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield from self.public_backend(service["name"], *service["port"].values())
                matches.append((path["pathType"], path.get("path", "/")))
        for tls in ingress["spec"].get("tls", []):
            yield from self.check_tls(tls["secretName"], tls["hosts"])
        yield from self.check_paths(matches)

    def check_route(self, route):
        matches = []
        for parent in route["spec"]["parentRefs"]:
            # A Gateway in another namespace is the operator's.
            if "namespace" in parent:
                continue
            listeners = self.by_kind.get("Gateway", {}).get(parent["name"], {"spec": {"listeners": []}})["spec"]["listeners"]
            listener = next((each for each in listeners if each["name"] == parent["sectionName"]), None)
            if listener is None:
                yield f"there is no Gateway {parent['name']} with a listener {parent['sectionName']}"
            elif listener["hostname"] not in route["spec"]["hostnames"]:
                yield f"its hosts are {shown(route['spec']['hostnames'])}, the listener's is {listener['hostname']}"
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                yield from self.public_backend(backend["name"], backend["port"])
            # The schema allows matches on the path only; a rule without a match accepts every path.
            for match in rule.get("matches", [{}]):
                path = match.get("path", {"type": "PathPrefix", "value": "/"})
                matches.append((path["type"], path["value"]))
        yield from self.check_paths(matches)

    def check_paths(self, matches):
        """Checks that every public route passes."""
        missed = [route for route in self.routes if not any(takes(kind, value, route) for kind, value in matches)]
        if missed:
            yield f"no rule takes {len(missed)} of {len(self.routes)} routes of the public listener: {', '.join(missed)}"

    def public_backend(self, name, port):
        """Checks that clients reach the public listener and nothing else."""
        found = list(self.backend(name, port))
        yield from found
        if found:
            return
        service = self.by_kind["Service"][name]
        targets = [each.get("targetPort", each["port"]) for each in service["spec"]["ports"] if port in (each["port"], each.get("name"))]
        for pod in self.pods({"matchLabels": service["spec"]["selector"]}):
            for container in pod["spec"]["containers"]:
                given = {**self.settings, **self.variables(container)}
                listener = int(given["SWITCHBOARD_LISTEN"].rsplit(":", 1)[1])
                for each in container.get("ports", []):
                    if {each["name"], each["containerPort"]} & set(targets) and each["containerPort"] != listener:
                        yield f"port {port} of Service {name} leads to {each['name']}, not to the public listener (listen: {listener})"

    def check_monitor(self, monitor):
        services = [service for service in self.all("Service") if fits(monitor["spec"]["selector"], service["metadata"].get("labels", {}))]
        if len(services) != 1:
            yield f"its selector takes {len(services)} Services"
        # Without jobLabel the job is the Service's name.
        jobs = {service["metadata"]["labels"].get(monitor["spec"].get("jobLabel"), service["metadata"]["name"]) for service in services}
        if jobs != {"switchboard"}:
            yield f"the job is {shown(jobs)}, but rules and dashboard are about the job switchboard"
        for endpoint in monitor["spec"]["endpoints"]:
            for service in services:
                yield from self.backend(service["metadata"]["name"], endpoint["port"])

    def check_gateway(self, gateway):
        for listener in gateway["spec"]["listeners"]:
            for reference in listener.get("tls", {}).get("certificateRefs", []):
                yield from self.check_tls(reference["name"], [listener["hostname"]])

    def check_tls(self, secret, hosts):
        """Checks that this Secret is one that the operator or cert-manager makes, for these hosts."""
        if secret not in EXTERNAL_SECRETS:
            yield f"there is no Secret {secret}"
        for certificate in self.all("Certificate"):
            if missing := set(hosts) - set(certificate["spec"]["dnsNames"]):
                yield f"Certificate {certificate['metadata']['name']} is not for {shown(missing)}"

    def check_certificate(self, certificate):
        if certificate["spec"]["secretName"] not in EXTERNAL_SECRETS:
            yield f"nothing uses the Secret {certificate['spec']['secretName']}"


def takes(kind, value, path):
    """Whether a match of an Ingress or an HTTPRoute accepts this path. Types whose meaning depends on the controller match nothing."""
    if kind == "Exact":
        return path == value
    return kind in ("Prefix", "PathPrefix") and f"{path}/".startswith(f"{value.rstrip('/')}/")


def port_names(template):
    """The ports of a pod, by name and by number."""
    ports = [port for container in template["spec"]["containers"] for port in container.get("ports", [])]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}


def shown(ports):
    return ", ".join(sorted(map(str, ports)))


def environment(top):
    """The variables of .env."""
    return dict(line.split("=", 1) for line in (top / ".env").read_text().splitlines() if re.match(r"\w+=", line))


def pinned_images(top):
    """The tags of the images that compose pulls, by name."""
    given = environment(top)
    services = yaml.safe_load((top / "docker-compose.yml").read_text())["services"].values()
    images = [service["image"] for service in services if "build" not in service]
    return dict(split_image(re.sub(r"\$\{(\w+)\}", lambda used: given.get(used[1], ""), image)) for image in images)


def split_image(image):
    """Name and tag."""
    return re.fullmatch(r"(.*?)(?::([^/:]*))?", image).groups()


def check_version(name, tag):
    first, end = FITTING.get(name, (None, None))
    if first is None:
        return
    version = tuple(map(int, re.findall(r"\d+", tag or "")))
    if version < first or (end and version >= end):
        wanted = f"{dotted(first)} or newer" + (f", but older than {dotted(end)}" if end else "")
        yield f"{name}:{tag} does not fit: {wanted} is needed"


def dotted(version):
    return ".".join(map(str, version))


def check_compose(top, settings, images):
    text = (top / "docker-compose.yml").read_text()
    given = environment(top)
    for used in sorted(set(re.findall(r"\$\{(\w+)", text)) - given.keys()):
        yield f"${{{used}}} is not in .env"
    for name, tag in images.items():
        yield from check_version(name, tag)
    for variable, default in re.findall(r"^ARG (\w+)=(.+)$", (top / "deploy/docker/Dockerfile").read_text(), re.MULTILINE):
        if given.get(variable, default) != default:
            yield f"{variable} is {given[variable]} in .env, but {default} in the Dockerfile"
    node = yaml.safe_load(text)["services"]["node"]
    for variable in node["environment"]:
        if variable.startswith("SWITCHBOARD_") and variable not in settings:
            yield f"{variable} is not a setting"
    deadline = node["environment"].get("SWITCHBOARD_DRAIN__DEADLINE", settings["SWITCHBOARD_DRAIN__DEADLINE"])
    if seconds(node["stop_grace_period"]) <= seconds(deadline) + LAST_WORDS:
        yield f"stop_grace_period {node['stop_grace_period']} is not more than drain.deadline and {LAST_WORDS} s"


if __name__ == "__main__":
    sys.exit(main())
