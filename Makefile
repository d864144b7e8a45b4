# The commands of this repository. `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
# Root needs no sudo, and a container often has none.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
MDBOOK_VERSION := 0.5.4
CENTRIFUGO_VERSION := 6.9.1
comma := ,

# A commit of Jaeger 2, as an ordinary Go tool: 7 minutes of CPU, once.
JAEGER_VERSION := v1.76.0
JAEGER_BIN ?= $(CURDIR)/target/jaeger/jaeger
export JAEGER_BIN

HOST := $(shell rustc --print host-tuple 2>/dev/null)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
BUILDER_IMAGE := $(shell sed -n 's/^BUILDER_IMAGE=//p' .env)
URL ?= ws://localhost:9090

.PHONY: help setup setup-test setup-lint setup-bench run test lint lint-deploy lint-client fmt bench bench-peerjs bench-peers setup-bench-peers bench-storm bench-telemetry torture endure docs reference screenshots lint-chart lint-workflows dist examples demo-call compose-test setup-browser test-browser test-client test-clients client-types interruptions setup-fuzz fuzz bench-abuse test-jaeger test-k8s test-operators

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: setup-test setup-lint setup-bench ## Install what the other targets need, except the browser tests.

setup-test: ## Install what the tests need: redis-server 7.0 or newer, haproxy 2.6 or newer, prometheus with promtool, and setpriv.
	@if ! command -v redis-server >/dev/null || ! command -v haproxy >/dev/null || ! command -v promtool >/dev/null || ! command -v setpriv >/dev/null; then \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server haproxy prometheus util-linux; \
	  else \
	    echo "Install redis-server (7.0 or newer), haproxy (2.6 or newer), prometheus and setpriv (util-linux) with your package manager:"; \
	    echo "  dnf install redis haproxy golang-github-prometheus util-linux    pacman -S redis haproxy prometheus util-linux    apk add redis haproxy prometheus setpriv"; exit 1; \
	  fi; \
	fi
	@version=$$(redis-server --version | sed -E 's/.* v=([0-9]+)\.([0-9]+).*/\1 \2/'); set -- $$version; \
	if [ "$$1" -lt 7 ]; then \
	  echo "redis-server $$1.$$2 is too old: 7.0 or newer is needed (packages.redis.io has them for older systems)"; exit 1; \
	fi

setup-lint: setup-test target/lint/ready ## Install what the linters need: cargo-deny, and a Python environment and kubectl in target/lint.
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --debug --locked --version $(DENY_VERSION)

target/lint/ready: .ci/requirements.txt .ci/kubectl.sh
	@python3 -c 'import ensurepip, venv, tomllib' 2>/dev/null || { \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
	  else echo "Install Python 3.11 or newer, with venv and pip"; exit 1; fi; }
	python3 -m venv target/lint
	target/lint/bin/pip install --quiet --disable-pip-version-check -r .ci/requirements.txt
	.ci/kubectl.sh target/lint/bin
	@touch $@

setup-bench: setup-test ## Install what the benchmarks need: the npm packages of the tutorial's server and of PeerServer.
	@command -v npm >/dev/null || { echo "Install Node.js 20 or newer, with npm: the benchmarks compare with a Node.js server"; exit 1; }
	@cd benches/tutorial && { [ -d node_modules/ws ] || npm ci --no-audit --no-fund; }
	@cd benches/peerserver && { [ -d node_modules/peer ] || npm ci --no-audit --no-fund; }

setup-browser: setup-test target/browser-venv/ready tests/browser/node_modules/ready tests/browser/peerjs/node_modules/ready ## Install what the browser tests need: Chromium, coturn, Node.js packages, aiortc in target/browser-venv, and Firefox where apt has it.
	@missing=; command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=" chromium"; command -v turnserver >/dev/null || missing+=" coturn"; command -v openssl >/dev/null || missing+=" openssl"; \
	if [ -n "$$missing" ]; then \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  else echo "Install these with your package manager:$$missing"; exit 1; fi; \
	fi
	@if ! command -v firefox-esr >/dev/null && ! command -v firefox >/dev/null; then \
	  if command -v apt-cache >/dev/null && apt-cache show firefox-esr >/dev/null 2>&1; then \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends firefox-esr; \
	  else echo "There is no Firefox: what runs in it is left out"; fi; \
	fi

tests/browser/node_modules/ready: tests/browser/package-lock.json
	@command -v npm >/dev/null || { echo "Install Node.js 20 or newer, with npm"; exit 1; }
	@cd tests/browser && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund
	@touch $@

# The client of PeerJS, and its server to compare with.
tests/browser/peerjs/node_modules/ready: tests/browser/peerjs/package-lock.json benches/peerserver/package-lock.json
	@cd benches/peerserver && npm ci --no-audit --no-fund
	@cd tests/browser/peerjs && npm ci --no-audit --no-fund
	@touch $@

target/browser-venv/ready target/operators-venv/ready: target/%-venv/ready: tests/%/requirements.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
	  else echo "Install Python 3.10 or newer, with venv and pip"; exit 1; fi; }
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

setup-fuzz: ## Install what fuzzing needs: cargo-fuzz. A C++ compiler must be there.
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked --version $(FUZZ_VERSION)

run: ## Run one node: clients at :9090, operators at 127.0.0.1:9091.
	$(CARGO) run --release

test: setup-test test-client ## Run all Rust tests, over memory and over real Redis servers (tests/README.md says which suite is for what).
	$(CARGO) test --locked $(TESTED) --lib --bins --test it --test transcripts
	$(CARGO) test --locked --test telemetry -- --test-threads=1 --nocapture
	$(CARGO) test --locked --test faults -- --test-threads=1 --nocapture
	$(CARGO) test --locked --test deploy -- --test-threads=1 --nocapture

lint: setup-lint lint-deploy lint-client lint-chart lint-workflows ## Check format, lints, docs, licences and sources, deploy/, and the types of the client library.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --lib --no-deps --document-private-items
	$(CARGO) deny --config .ci/deny.toml check bans licenses sources

lint-deploy: setup-test target/lint/ready ## Check the Dockerfile, the compose file, HAProxy's configuration and the Kubernetes manifests, and that the checker finds typos.
	target/lint/bin/hadolint deploy/docker/Dockerfile
	target/lint/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	haproxy -c -q -f deploy/haproxy/haproxy.cfg
	target/lint/bin/openapi-spec-validator docs/src/schema/openapi.json docs/src/schema/admin.json
	target/lint/bin/check-jsonschema --check-metaschema docs/src/schema/client-message.json docs/src/schema/server-message.json
	PATH=$(CURDIR)/target/lint/bin:$$PATH target/lint/bin/python .ci/manifests/check.py
	PATH=$(CURDIR)/target/lint/bin:$$PATH target/lint/bin/python .ci/manifests/test_check.py

test-client: ## The parts of the client library that need no browser, under a clock that the tests turn. Needs only Node.js, and is left out without it.
	@if command -v node >/dev/null; then node --test client/test/*.test.mjs; else echo "There is no Node.js: the client library is not tested"; fi

client-types: tests/browser/node_modules/ready ## Write client/switchboard.d.ts anew.
	node client/types.mjs

lint-client: tests/browser/node_modules/ready ## Check the client library's types, the bundle, and a program that uses them.
	tests/browser/node_modules/.bin/tsc -p client/tsconfig.json
	node client/types.mjs check
	tests/browser/node_modules/.bin/tsc --noEmit --strict --target es2022 --module nodenext --lib es2022,dom,esnext.disposable client/switchboard.d.ts tests/browser/types/use.ts

lint-chart: target/lint/ready ## Check the Helm chart, and that it gives what Kustomize gives.
	PATH=$(CURDIR)/target/lint/bin:$$PATH target/lint/bin/python .ci/manifests/helm.py

lint-workflows: target/lint/ready ## Check the workflows in .github/. Needs Go for actionlint, and is left out without it.
	@if command -v go >/dev/null; then .ci/go-tool.sh target/lint/bin github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 && target/lint/bin/actionlint; \
	else echo "There is no Go: the workflows are not checked"; fi

docs: target/tools/mdbook-$(MDBOOK_VERSION) ## Build the book in target/book, after checking its links and its generated pages.
	$(CARGO) test --locked --test it -- book::links book::reference
	target/tools/bin/mdbook build docs

target/tools/mdbook-$(MDBOOK_VERSION):
	$(CARGO) install mdbook --locked --version $(MDBOOK_VERSION) --root target/tools
	@touch $@

reference: deploy/k8s/components/alerts/prometheusrule.yaml ## Write anew what is generated: pages of the book (settings, the types of the client library), and the rules of the Prometheus operator.
	WRITE_REFERENCE=1 $(CARGO) test --locked --test it book::reference

deploy/k8s/components/alerts/prometheusrule.yaml: deploy/prometheus/switchboard.rules.yml
	@{ printf '%s\n' '# Written by `make reference`, from $<.' 'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' \
	  'metadata:' '  name: switchboard' 'spec:'; sed -n '/^groups:/,$$ { s/./  &/; p }' $<; } >$@

screenshots: setup-browser $(JAEGER_BIN) ## Take the pictures in docs/src/images anew, in Chromium; the call's trace comes from a real Jaeger, as in test-jaeger.
	$(CARGO) build --locked --bin switchboard
	node tests/browser/screenshots.mjs

fmt: ## Format the code.
	$(CARGO) fmt --all

dist: ## Build a static binary for this kind of machine, and an archive of it, in dist/.
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --profile dist --bin switchboard --target $(HOST)
	@mkdir -p dist
	cp target/$(HOST)/dist/switchboard dist/switchboard
	tar -czf dist/switchboard-$(VERSION)-$(HOST).tar.gz --owner=0 --group=0 \
	  -C dist switchboard -C .. LICENSE CHANGELOG.md src/config/default.toml deploy/systemd

# A node as the Rust tests build it, whose dependencies have more features: `.ci/run` compiles everything once.
TESTED := --package switchboard --package switchboard-client
TESTED_NODE := $(CARGO) test --locked $(TESTED) --no-run --test it
# The Rust client that the tests of clients start.
TALKER := $(CARGO) build --locked $(TESTED) --example talker

test-browser: setup-browser ## Run the tests that need Chromium. SHORT=1: one call only. TESTS='tests/browser/calls.test.mjs': these files only. SHOTS=folder: keep pictures of each state of the page.
	$(TESTED_NODE)
	$(if $(SHORT),,$(TALKER))
	SHORT=$(SHORT) node --test --test-force-exit --test-concurrency=1 --test-reporter=spec $(or $(TESTS),$(if $(SHORT),tests/browser/short.test.mjs,$(sort $(wildcard tests/browser/*.test.mjs))))

test-operators: setup-test target/operators-venv/ready ## Hold the admin API to its OpenAPI description, with Schemathesis, and the webhooks to what they promise, with standardwebhooks.
	$(TESTED_NODE)
	target/operators-venv/bin/python tests/operators/test_admin.py
	target/operators-venv/bin/python tests/operators/test_webhooks.py

$(CURDIR)/target/jaeger/jaeger:
	mkdir -p target/jaeger && cd target/jaeger && { [ -f go.mod ] || go mod init jaeger; } && \
	  go get -tool github.com/jaegertracing/jaeger/cmd/jaeger@$(JAEGER_VERSION) && \
	  go build -trimpath -ldflags='-s -w' -o jaeger github.com/jaegertracing/jaeger/cmd/jaeger

# The client for Go is left out where there is no Go.
test-clients: setup-browser ## The clients for Python, Go and Rust: clients/transcripts.json, the death of nodes, and calls with Chromium.
	cd clients/python && PYTHONPATH=. $(CURDIR)/target/browser-venv/bin/python -m unittest tests.test_transcripts
	@if command -v go >/dev/null; then cd clients/go && test -z "$$(gofmt -l . ../../examples/pion)" && go vet ./... && go test ./...; \
	else echo "There is no Go: the client for it is not tested"; fi
	$(TESTED_NODE)
	$(TALKER)
	node --test --test-force-exit --test-reporter=spec tests/browser/clients.test.mjs

test-jaeger: setup-browser $(JAEGER_BIN) ## Show a call of two browsers in a real Jaeger. JAEGER_BIN names its binary; without it, it is built (Go).
	$(CARGO) build --locked --bin switchboard
	node --test --test-force-exit --test-reporter=spec tests/jaeger/call.test.mjs

test-k8s: target/lint/ready ## Run deploy/k8s and deploy/helm on the cluster that kubectl's context names, and break it under load. tests/k8s/run.sh says which images it needs.
	PATH=$$PATH:$(CURDIR)/target/lint/bin tests/k8s/run.sh

interruptions: setup-browser ## Print how long media and signalling are interrupted by what happens in the field. ONLY=words: rows with them. BEFORE=commit compares with the client library of that commit.
	$(CARGO) build --locked --bin switchboard
	@if [ -n "$(BEFORE)" ]; then mkdir -p target/before && git archive $(BEFORE) client | tar -x -C target/before; fi
	node tests/browser/interruptions.mjs $(if $(BEFORE),target/before/client) client

demo-call: ## Keep a call of two resumable users going while you kill nodes. URL=ws://... (ws://localhost:9090), SECONDS=n (until Ctrl-C).
	$(CARGO) run --locked --quiet --example demo-call -- $(URL) $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS))

examples: ## Run a node at :9090, and serve the pages of examples/ at http://localhost:8000.
	$(CARGO) build --locked --release --bin switchboard
	@trap 'kill 0' EXIT; target/release/switchboard & python3 -m http.server --bind 127.0.0.1 --directory examples 8000

compose-test: ## Run docker-compose.yml on this machine's Docker engine, and kill, stop, scale and replace its services.
	@docker compose version >/dev/null || { echo "A Docker engine with Compose v2 is needed: https://docs.docker.com/engine/install/"; exit 1; }
	@docker image inspect $(BUILDER_IMAGE) >/dev/null 2>&1 || docker pull -q $(BUILDER_IMAGE) 2>/dev/null || $(MAKE) dist
	$(CARGO) test --locked --test compose

bench: setup-bench ## Compare plain and resumable sessions with the tutorial's server. REPS, SECONDS, PAIRS, IDLE, SCENARIOS, SUBJECTS; BEFORE=binary adds another build.
	$(CARGO) bench --locked --bench relay

bench-peerjs: setup-bench ## Compare with PeerServer, the server of PeerJS. REPS, SECONDS, PAIRS, IDLE, SCENARIOS.
	SUBJECTS=peerserver,peerjs $(CARGO) bench --locked --bench relay

setup-bench-peers: setup-bench ## Install what bench-peers needs besides: npm packages, and Centrifugo, which is built with Go.
	@command -v go >/dev/null || { echo "Install Go 1.26 or newer: Centrifugo is built from source"; exit 1; }
	@cd benches/peers && { [ -d node_modules/socket.io ] || npm ci --no-audit --no-fund; }
	.ci/go-tool.sh target/peers github.com/centrifugal/centrifugo/v6@v$(CENTRIFUGO_VERSION)

bench-peers: setup-bench-peers ## Compare with servers of other makes, two nodes each where they scale, and kill a node of each. REPS, SECONDS, PAIRS, IDLE, SCENARIOS, SUBJECTS.
	SUBJECTS=$${SUBJECTS:-tutorial,switchboard,resumable,peerserver,by-hand,socketio,centrifugo,centrifugo-recovery} \
	  SCENARIOS=$${SCENARIOS:-w1,w16,calls,idle,death} IDLE=$${IDLE:-2000} $(CARGO) bench --locked --bench relay

bench-telemetry: setup-test ## Measure the cost of tracing: off, 1 % of calls, all calls, and with failing collectors. BEFORE=binary adds another build.
	SUBJECTS=$${SUBJECTS:-switchboard$(if $(BEFORE),$(comma)before),sampled,traced,traced-refused,traced-slow,traced-gone} SCENARIOS=$${SCENARIOS:-w16,calls} $(CARGO) bench --locked --bench relay

# Without a sanitizer, so that the stable compiler suffices: the code has no `unsafe`. What is found stays in fuzz/artifacts.
fuzz: setup-fuzz ## Fuzz the codecs, the bodies of HTTP requests, and the configuration. SECONDS for each target (30), TARGETS (all).
	@for target in $(or $(TARGETS),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))); do \
	  echo "fuzz: $$target"; mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -verbosity=0 -timeout=10 -rss_limit_mb=1024 \
	    -max_total_time=$(or $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS)),30) || exit 1; \
	done

endure: setup-test ## Run the long versions of the resume tests: 10 kills, 10 rolling restarts, a minute without Redis, 30 % of pushes dropped, 80 times an empty Redis.
	LONG=1 ROUNDS=$${ROUNDS:-20} $(CARGO) test --locked --features seeded-bugs --test faults -- --test-threads=1 --nocapture resumed emptied young

# One build for the server and for what runs it: the kit takes the server binary that is beside its own.
PROFILE ?= release
RELEASE := --locked --profile $(PROFILE) --package switchboard --package testing

torture: setup-test ## Chaos: inject random faults into a cluster and check what its clients saw. SEEDS=n (1), SEED=first, BUG=name|all, PROFILE=dev.
	$(CARGO) build $(RELEASE) --features seeded-bugs --bin switchboard --bin chaos
	$(CARGO) run --quiet --locked --profile $(PROFILE) --features seeded-bugs --package testing --bin chaos

bench-storm: setup-test ## Soak: kill a node that has a third of 18,000 resumable sessions, and check that they resume. SESSIONS, RESUME_WITHIN.
	$(CARGO) build $(RELEASE) --bin switchboard --bin soak
	$(CARGO) run --quiet --locked --release --package testing --bin soak

bench-abuse: setup-test ## Print what abuse costs: bytes at Redis and memory for each byte, and the p99 of bystanders. BEFORE=binary adds another build.
	$(CARGO) build $(RELEASE) --bin switchboard --bin abuse
	$(CARGO) run --quiet --locked --release --package testing --bin abuse
