# Everything that is done with Switchboard. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
# Root needs no sudo, and a container often has none.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
DENY_VERSION := 0.20.2
comma := ,

.PHONY: help setup setup-test setup-lint setup-bench run test lint fmt bench bench-storm bench-telemetry torture endure

help: ## List what can be made.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: setup-test setup-lint setup-bench ## Install everything that the other targets need.

setup-test: ## Install what tests need: redis-server 7.0 or newer, prometheus with promtool, and setpriv.
	@if ! command -v redis-server >/dev/null || ! command -v setpriv >/dev/null || ! command -v promtool >/dev/null; then \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server prometheus util-linux; \
	  else \
	    echo "Install redis-server (7.0 or newer), prometheus and setpriv (util-linux) with your package manager:"; \
	    echo "  dnf install redis golang-github-prometheus util-linux    pacman -S redis prometheus util-linux    apk add redis prometheus setpriv"; exit 1; \
	  fi; \
	fi
	@version=$$(redis-server --version | sed -E 's/.* v=([0-9]+)\.([0-9]+).*/\1 \2/'); set -- $$version; \
	if [ "$$1" -lt 7 ]; then \
	  echo "redis-server $$1.$$2 is too old: 7.0 or newer is needed (packages.redis.io has them for older systems)"; exit 1; \
	fi

setup-lint: ## Install what the linters need: cargo-deny.
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked --version $(DENY_VERSION)

setup-bench: setup-test ## Install what the benchmark needs: Node.js' ws package, for the tutorial's server.
	@command -v npm >/dev/null || { echo "Install Node.js 20 or newer, with npm: the benchmark's reference is a Node.js server"; exit 1; }
	@cd benches/tutorial && { [ -d node_modules/ws ] || npm ci --no-audit --no-fund; }

run: ## Run one node: clients at :9090, operators at 127.0.0.1:9091.
	$(CARGO) run --release

test: setup-test ## Run all tests, on the embedded fabric and on real Redis servers.
	$(CARGO) test --locked --lib --bins --test it
	$(CARGO) test --locked --test telemetry -- --test-threads=1 --nocapture
	$(CARGO) test --locked --test faults -- --test-threads=1 --nocapture

lint: setup-lint ## Check format, lints, docs, licences and sources.
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) deny --config .ci/deny.toml check bans licenses sources

fmt: ## Format the code.
	$(CARGO) fmt

bench: setup-bench ## Measure against the tutorial's server. REPS, SECONDS, PAIRS, IDLE and SCENARIOS may be set.
	$(CARGO) bench --locked --bench relay

bench-telemetry: setup-test ## Measure what tracing costs, in turns: off, 1 % of calls, all, and with collectors that are away. BEFORE=binary adds another build.
	SUBJECTS=$${SUBJECTS:-switchboard$(if $(BEFORE),$(comma)before),sampled,traced,traced-refused,traced-slow,traced-gone} SCENARIOS=$${SCENARIOS:-w16,calls} $(CARGO) bench --locked --bench relay

endure: setup-test ## The long versions of the tests of resumed calls: 10 kills, 10 rolling restarts, a minute without Redis, 30 % of pushes dropped.
	LONG=1 $(CARGO) test --locked --features seeded-bugs --test faults -- --test-threads=1 --nocapture resumed

torture: setup-test ## Break a cluster in every way there is, and judge what its clients saw. SEEDS=n (1), SEED=first, BUG=name|all.
	$(CARGO) bench --locked --features seeded-bugs --bench torture

bench-storm: setup-test ## Kill a node with a third of 18,000 resumable sessions, and see them resume. SESSIONS and RESUME_WITHIN may be set.
	$(CARGO) bench --locked --bench storm
