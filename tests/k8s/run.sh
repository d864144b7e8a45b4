#!/usr/bin/env bash
# Applies deploy/k8s and deploy/helm to the cluster that kubectl's context names, and breaks it under load. Prints what
# was lost, repeated, refused and cut, and fails if anything was. `make test-k8s`
#
# A real cluster, kind (`kind create cluster --config tests/k8s/kind.yaml`) or k3d, which can get these images:
#   SWITCHBOARD_IMAGE (switchboard:local)   docker build -f deploy/docker/Dockerfile -t switchboard:local .
#                                           kind load docker-image switchboard:local
#   CLIENT_IMAGE (node:22-alpine)           what talks, in a pod of its own
#   those of Redis and Jaeger that deploy/k8s/overlays/dev names
# It makes the namespace `switchboard`, which must not be there before, and deletes it in the end; KEEP=1 leaves it.
# With two machines or more it drains one of its nodes. PAIRS (100) pairs of users send a message every EVERY (200) ms.
# FRONT=NAMESPACE/SERVICE is where a Gateway `gateway/public` or an Ingress controller listens; without it, none is tried.
# Some of it: STEPS="start call force" (objects start call demo restart scale drain force redis front prod chart).
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

: "${SWITCHBOARD_IMAGE:=switchboard:local}" "${CLIENT_IMAGE:=node:22-alpine}" "${PAIRS:=100}" "${EVERY:=200}"
: "${STEPS:=objects start call demo restart scale drain force redis front prod chart}" "${FRONT:=}"
base=http://switchboard:9090
NODES="app.kubernetes.io/name=switchboard"
faults=()
k() { kubectl --namespace switchboard "$@"; }
say() { printf '\n== %s\n' "$*"; }
fault() { echo "FAULT: $*"; faults+=("$*"); }
stop() { echo "$*" >&2; exit 2; }
nodes() { k get pods --selector "$NODES" "$@"; }
now() { date +%s%N | cut -c1-13; }
apply() { kubectl apply --server-side --warnings-as-errors "$@"; }

context=$(kubectl config current-context) || stop "kubectl has no context: make a cluster (kind create cluster --config tests/k8s/kind.yaml)"
kubectl version >/dev/null || stop "the cluster of kubectl's context $context does not answer"
command -v helm >/dev/null || stop "helm is not there: make setup-lint"
kubectl get namespace switchboard >/dev/null 2>&1 && stop "the cluster of $context has a namespace switchboard already: delete it, or use another cluster"
ways=$(mktemp -d deploy/k8s/test.XXXXXX)
drained=

tidy() {
  [[ -z $drained ]] || kubectl uncordon "$drained" >/dev/null
  [[ -n ${KEEP:-} ]] || kubectl delete namespace switchboard --ignore-not-found >/dev/null
  rm -rf "$ways"
}
trap tidy EXIT

# way NAME BASE [LINES]: a kustomization of one of deploy/k8s.
way() {
  mkdir -p "$ways/$1"
  printf 'namespace: switchboard\nresources: [../../%s]\n%b\n' "$2" "${3:-}" >"$ways/$1/kustomization.yaml"
}
image() { printf 'images: [{name: %s, newName: "%s", newTag: "%s"}]' "$1" "${2%:*}" "${2##*:}"; }

# The rollout is over, every pod is ready, and those that were replaced have gone.
ready() {
  local count
  k rollout status deployment/switchboard --timeout=300s >/dev/null || fault "the nodes do not get ready"
  count=$(k get deployment switchboard --output 'jsonpath={.spec.replicas}')
  for _ in {1..180}; do
    [[ $(nodes --no-headers | awk '{print $2, $3}' | sort | uniq -c | xargs) == "$count 1/1 Running" ]] && return
    sleep 0.5
  done
  fault "there are not $count nodes: $(nodes --no-headers)"
}

# client [ADDRESS]: what talks; for it the host of the Gateway is at this address.
client() {
  k delete pod/client configmap/client --ignore-not-found >/dev/null
  k create configmap client --from-file=tests/k8s/call.mjs --from-file=tests/k8s/load.mjs >/dev/null
  sed "s|CLIENT_IMAGE|$CLIENT_IMAGE|; s|FRONT_ADDRESS|${1:-127.0.0.1}|" tests/k8s/client.yaml | k apply --filename - >/dev/null
  k wait --for=condition=Ready pod/client --timeout=120s >/dev/null || stop "the pod \`client\` does not start: $(k describe pod client | tail -3)"
}

# under_load NAME COMMAND...: runs the command while users talk, and says what became of their messages.
under_load() {
  local what=$1 load log=$ways/log
  shift
  say "$what, while $((2 * PAIRS)) users talk"
  rm -f "$ways/stop"; mkfifo "$ways/stop"
  k exec --stdin client -- node /scripts/load.mjs "$base" "$PAIRS" "$EVERY" <"$ways/stop" >"$log" 2>&1 &
  load=$!
  exec 3>"$ways/stop"
  for _ in {1..120}; do
    grep -q connected "$log" || ! kill -0 "$load" 2>/dev/null && break
    sleep 0.5
  done
  sleep 3
  "$@"
  sleep 5
  exec 3>&-
  wait "$load" || fault "$what"
  cat "$log"
}

objects() {
  say "every overlay and component, on the API server; warnings count as errors"
  local path name
  for path in deploy/k8s/overlays/*/ deploy/k8s/components/*/ deploy/k8s/demo/; do
    name=$(basename "$path")
    case $path in
      */components/*) way "$name" base "components: [../../components/$name]" ;;
      *) way "$name" "${path#deploy/k8s/}" ;;
    esac
    # The overlay dev has it, and takes it along.
    apply --kustomize deploy/k8s/namespace >/dev/null
    if apply --kustomize "$ways/$name" >"$ways/log" 2>&1; then
      echo "$name: $(grep -c serverside-applied "$ways/log") objects"
      kubectl diff --server-side --kustomize "$ways/$name" >"$ways/log" 2>&1 || fault "$name is different when it is applied again: $(cat "$ways/log")"
    elif grep -qE 'no matches for kind|could not find the requested resource' "$ways/log"; then
      echo "$name: not tried, the cluster has no $(grep -oE 'kind "[^"]*" in version "[^"]*"|patch [a-z0-9.-]+' "$ways/log" | sort -u | paste -sd,)"
    else
      fault "$name: $(cat "$ways/log")"
    fi
    kubectl delete --ignore-not-found --kustomize "$ways/$name" >/dev/null 2>&1
  done
  kubectl delete namespace switchboard --ignore-not-found >/dev/null
}

start() {
  say "overlays/dev, whose Redis is 20 s late"
  local restarts began
  way dev overlays/dev "$(image switchboard "$SWITCHBOARD_IMAGE")"
  way late "${ways##*/}/dev" 'replicas: [{name: redis, count: 0}]'
  apply --kustomize "$ways/late" >/dev/null || fault "overlays/dev"
  client
  sleep 20
  [[ $(nodes --output 'jsonpath={.items[*].status.containerStatuses[*].ready}') == *true* ]] && fault "a node is ready without Redis"
  apply --kustomize "$ways/dev" >/dev/null || fault "overlays/dev"
  k rollout status statefulset/redis --timeout=120s >/dev/null || fault "Redis does not start"
  began=$(now)
  for _ in {1..600}; do [[ $(nodes --no-headers | grep -c ' 1/1 ') == 2 ]] && break; sleep 0.1; done
  echo "the nodes are ready $(($(now) - began)) ms after Redis"
  ready
  restarts=$(nodes --output 'jsonpath={.items[*].status.containerStatuses[*].restartCount}')
  [[ $restarts =~ ^[0\ ]+$ ]] || fault "nodes were restarted: $restarts"
  k rollout status deployment/jaeger --timeout=120s >/dev/null || fault "Jaeger does not start"
}

call() {
  say "a call between clients of two pods"
  local urls=() ip
  for ip in $(nodes --output 'jsonpath={.items[*].status.podIP}'); do
    [[ $ip == *:* ]] && ip="[$ip]"
    urls+=("ws://$ip:9090/ws")
  done
  k exec client -- node /scripts/call.mjs "${urls[@]:0:2}" || fault "a call between two pods"
}

demo() {
  say "deploy/k8s/demo: a call, and the pod of one side is deleted"
  way demo demo "$(image node "$CLIENT_IMAGE")"
  cat >>"$ways/demo/kustomization.yaml" <<'SHORT'
patches:
  - target: {kind: Job}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/env/1/value", "value": "40"}]'
SHORT
  apply --kustomize "$ways/demo" >/dev/null || fault "the demo"
  local pod
  for _ in {1..120}; do
    pod=$(k logs job/demo-call 2>/dev/null | sed -n 's/.*UserA at \(switchboard-[a-z0-9-]*\).*hears.*/\1/p' | head -1)
    [[ -n $pod ]] && break
    sleep 0.5
  done
  k delete pod "$pod" --wait=false >/dev/null || fault "no call in the demo"
  k wait --for=condition=Complete job/demo-call --timeout=120s >/dev/null || fault "the demo's call"
  k logs job/demo-call | grep -Ev ' hears (offer|answer|candidate) '
  kubectl delete --kustomize "$ways/demo" >/dev/null
  ready
}

restarts() { k rollout restart deployment/switchboard >/dev/null && ready; }
restart() { under_load "a rolling restart" restarts; }

scales() {
  local count
  for count in 5 2; do k scale deployment/switchboard --replicas=$count >/dev/null && ready; done
}
scale() { under_load "2, 5 and 2 nodes" scales; }

drains() {
  drained=$1
  kubectl drain "$1" --ignore-daemonsets --delete-emptydir-data --pod-selector "$NODES" --timeout=180s >/dev/null || fault "$1 is not drained"
  ready
  kubectl uncordon "$1" >/dev/null && drained=
}
drain() {
  local machines machine
  # Those without a taint.
  machines=$(kubectl get nodes --output 'jsonpath={range .items[*]}{.spec.taints[*].effect}{"\n"}{end}' | grep -c '^$')
  ((machines > 1)) || { say "a drained machine: not tried, the cluster has no second one"; return; }
  machine=$(nodes --output 'jsonpath={.items[0].spec.nodeName}')
  under_load "machine $machine is drained" drains "$machine"
}

kills() {
  k delete pod "$(nodes --output 'jsonpath={.items[0].metadata.name}')" --force --grace-period=0 >/dev/null 2>&1
  ready
}
force() { under_load "a pod is deleted by force" kills; }

loses_redis() {
  k delete pod redis-0 >/dev/null
  for _ in {1..240}; do k wait --for=condition=Ready pod/redis-0 --timeout=60s >/dev/null 2>&1 && break; sleep 0.2; done
  ready
  sleep 10
}
redis() { under_load "Redis' pod is deleted, with all that it knew" loses_redis; }

# Begins with an empty namespace that has a Redis and the Secret with its URL.
anew() {
  kubectl delete namespace switchboard --ignore-not-found >/dev/null
  apply --kustomize deploy/k8s/namespace >/dev/null
  k apply --filename deploy/k8s/overlays/dev/redis.yaml >/dev/null
  k create secret generic switchboard-redis --from-literal=url=redis://redis:6379 >/dev/null
}

front() {
  [[ -n $FRONT ]] || { say "a Gateway and an Ingress: not tried, FRONT names none"; return; }
  say "components/gateway and components/ingress, behind $FRONT"
  local address pages served host=http://signal.example.org
  way front overlays/dev "components: [../../components/gateway, ../../components/ingress]\n$(image switchboard "$SWITCHBOARD_IMAGE")"
  apply --kustomize "$ways/front" >/dev/null || fault "the Gateway's route"
  address=$(kubectl --namespace "${FRONT%/*}" get service "${FRONT#*/}" --output 'jsonpath={.spec.clusterIP}')
  client "$address"
  pages="for (const path of ['/', '/client/switchboard.js', '/page/page.js', '/doctor', '/v1/whoami', '/peerjs/id', '/livez', '/v1/users']) {
    const { status } = await fetch('$host' + path)
    console.log(status, path)
    if ((status === 404) !== ['/livez', '/v1/users'].includes(path)) process.exitCode = 1
  }"
  for _ in {1..60}; do
    k exec client -- node --input-type=module --eval "$pages" >"$ways/log" 2>&1 && served=1 && break
    sleep 0.5
  done
  cat "$ways/log"
  [[ -n $served ]] || fault "the pages through $FRONT"
  k exec client -- node /scripts/call.mjs "ws${host#http}/" "ws${host#http}/ws" || fault "a call through $FRONT"
  base=$host under_load "a rolling restart, behind $FRONT" restarts
}

prod() {
  say "overlays/prod, with a Redis that is not its own"
  anew
  way prod overlays/prod "$(image registry.example.org/switchboard "$SWITCHBOARD_IMAGE")"
  apply --kustomize "$ways/prod" >/dev/null || fault "overlays/prod"
  for _ in {1..120}; do
    [[ $(k get deployment switchboard --output 'jsonpath={.spec.replicas}') == 3 ]] && break
    sleep 0.5
  done
  ready
  k get hpa,pdb
  client
  call
  under_load "overlays/prod, a rolling restart" restarts
  under_load "overlays/prod, a pod is deleted by force" kills
}

chart() {
  say "deploy/helm, and a call between clients of two pods"
  anew
  helm template switchboard deploy/helm --namespace switchboard --set replicas=2 \
    --set "image.repository=${SWITCHBOARD_IMAGE%:*}" --set "image.tag=${SWITCHBOARD_IMAGE##*:}" |
    apply --namespace switchboard --filename - >/dev/null || fault "deploy/helm"
  ready
  client
  call
}

echo "the cluster of kubectl's context $context"
for step in $STEPS; do "$step"; done
((${#faults[@]} == 0)) || { printf '\nFAULT: %s' "${faults[@]}"; echo; exit 1; }
printf '\nnothing was lost\n'
