#!/usr/bin/env python3
"""Checks the Helm chart: it gives what Kustomize gives, its objects fit each other, and its schema refuses typos."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

import check

TOP = Path(__file__).resolve().parents[2]
CHART = TOP / "deploy/helm"

# components of deploy/k8s, and the values that stand for them
WAYS = [
    ([], ["replicas=null"]),
    (["hpa"], ["autoscaling.enabled=true"]),
    (["servicemonitor", "gateway"], ["replicas=null", "serviceMonitor.enabled=true", "httpRoute.enabled=true"]),
    (["ingress"], ["replicas=null", "ingress.enabled=true"]),
    (["alerts", "dashboard"], ["replicas=null", "prometheusRule.enabled=true", "dashboard.enabled=true"]),
    (["userns", "priority"], ["replicas=null", "hostUsers=false", "priorityClassName=switchboard"]),
]
# values that the schema must refuse
TYPOS = ["replica=4", "replicas=many", "settings.REDIS_URL=x", "terminationGracePeriodSeconds=10", "ingress.hosts=a"]
# labels that one of the two puts on every object
USUAL = {"app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/managed-by", "helm.sh/chart"}


def main():
    found = list(mistakes())
    for mistake in found:
        print(f"deploy/helm: {mistake}", file=sys.stderr)
    if not found:
        print("deploy/helm gives what deploy/k8s gives, and its schema refuses typos")
    return 1 if found else 0


def mistakes():
    linted = run("helm", "lint", "--strict", CHART)
    if linted.returncode:
        yield linted.stdout
        return
    settings, routes = check.known_settings(TOP), []
    routes = check.public_routes(TOP, settings, routes)
    for components, values in WAYS:
        name = "+".join(["base", *components])
        rendered = helm(values)
        if rendered.returncode:
            yield f"{name}: {rendered.stderr}"
            continue
        objects = [object for object in yaml.safe_load_all(rendered.stdout) if object]
        if "priority" in components:
            # The chart uses a class that is there.
            objects.append(yaml.safe_load((TOP / "deploy/k8s/components/priority/priority.yaml").read_text()))
        yield from (f"{name}: {mistake}" for mistake in check.check_objects(objects, settings, routes, {}))
        yield from (f"{name}: {mistake}" for mistake in differences(named(objects), named(kustomize(components))))
    for typo in TYPOS:
        if not helm([typo]).returncode:
            yield f"values.schema.json takes {typo}"


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def helm(values):
    sets = [word for value in values for word in ("--set", value)]
    api = ["--api-versions", "monitoring.coreos.com/v1", "--kube-version", "1.34"]
    return run("helm", "template", "switchboard", CHART, "--namespace", "switchboard", *api, *sets)


def kustomize(components):
    with tempfile.TemporaryDirectory(dir=TOP / "deploy/k8s") as folder:
        listed = ", ".join(f"../components/{component}" for component in components)
        text = f"resources: [../base]\ncomponents: [{listed}]\n"
        (Path(folder) / "kustomization.yaml").write_text(text)
        built = run("kubectl", "kustomize", folder)
    built.check_returncode()
    return [object for object in yaml.safe_load_all(built.stdout) if object]


def named(objects):
    """The objects by kind and name, without what differs by design."""
    return {check.describe(plain): plain for plain in map(plain, objects) if plain["kind"] != "Namespace"}


def plain(object):
    meta = object["metadata"]
    meta.pop("namespace", None)
    meta["labels"] = {key: value for key, value in meta.get("labels", {}).items() if key not in USUAL}
    # Kustomize rolls the nodes by a name made of the settings, the chart by an annotation.
    meta["name"] = unhashed(meta["name"])
    if object["kind"] == "Deployment":
        template = object["spec"]["template"]
        template["metadata"].pop("annotations", None)
        for container in template["spec"]["containers"]:
            container["image"] = container["image"].split(":")[0]
            for source in container["envFrom"]:
                source["configMapRef"]["name"] = unhashed(source["configMapRef"]["name"])
    return object


def unhashed(name):
    return re.sub(r"-[a-z0-9]{10}$", "", name)


def differences(one, other, path=""):
    if type(one) is type(other) is dict:
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                yield f"{path}/{key} is in {'Kustomize' if key in other else 'Helm'} only"
            else:
                yield from differences(one[key], other[key], f"{path}/{key}")
    elif type(one) is type(other) is list and len(one) == len(other):
        for number, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{path}/{number}")
    elif one != other:
        yield f"{path} is {one!r} in Helm, {other!r} in Kustomize"


if __name__ == "__main__":
    sys.exit(main())
