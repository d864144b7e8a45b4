#!/usr/bin/env bash
# Replaces the nodes of the compose cluster one by one, by those of SWITCHBOARD_IMAGE as it is now. From the top of the repository:
#
#   docker compose build node && deploy/docker/roll.sh
#
# Each node is drained (its users go elsewhere, resumable ones without loss), and the next waits until the new one is healthy.
# `docker compose up -d --build` alone would replace all at once.
set -euo pipefail

mapfile -t old < <(docker compose ps -q node)
for container in "${old[@]}"; do
  # More than drain.deadline.
  docker stop --time 30 "$container" >/dev/null
  docker rm "$container" >/dev/null
  # As many as there were; those that run are left alone, also if they are of the image before.
  docker compose up -d --no-deps --no-recreate --no-build --wait --scale node="${#old[@]}" node
done
