#!/usr/bin/env bash
# Puts a program of a Go module into a folder, once for each version: go-tool.sh FOLDER MODULE/cmd/NAME@VERSION
set -euo pipefail
folder=$(realpath "$1") module=$2
name=$(basename "${module%@*}")
mark=$folder/.$name-${module#*@}
[ -e "$mark" ] || { GOBIN=$folder go install "$module" && touch "$mark"; }
