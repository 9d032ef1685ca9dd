# One command list for people and for CI. Needs Python 3.11 or newer, make and git; nothing else.
PYTHON ?= python3
PORT ?= 3000
HOST ?= 127.0.0.1
BIN := .venv/bin
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo setup repro serve test lint soak bench fetch rollback collection clean

demo: repro serve ## environment, pipeline, service: from a fresh clone to a page in the browser

setup: $(BIN)/.complete ## the environment in .venv, exact versions from constraints.txt

$(BIN)/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f'Python 3.11 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=python3.12')"
	@echo "Installing into .venv (a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt setuptools
	$(BIN)/pip install --disable-pip-version-check --no-build-isolation -c constraints.txt -e ".[train,serve,client,fingerprints,c2pa,dev]"
	@touch $@

repro: setup ## run the pipeline: only what changed
	@dvc repro || { echo "The pipeline stopped. Finished stages and checkpoints are kept: \`make repro\` goes on from there."; exit 1; }

serve: setup ## serve what is in models/ to this machine; HOST=0.0.0.0 serves others, with VERISYNTH_KEYS_FILE
	@echo "Verisynth is starting on http://localhost:$(PORT)"
	bentoml serve serving.service:Verisynth --host $(HOST) --port $(PORT) --timeout-graceful-shutdown 30

test: setup ## all tests, on all cores
	python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 15

lint: setup ## style and types
	ruff check .
	ruff format --check .
	mypy
	python -m training.params

soak: setup ## faults and load against running services, as a table: some ten minutes
	python -m tests.soak

bench: setup ## speed as ratios, written to reports/bench.json
	python -m tests.bench

fetch: setup ## download a MedMNIST set: make fetch SET=pneumoniamnist FOLDER=data/raw/pneumonia
	python -m training.data.medmnist $(SET) $(FOLDER)

rollback: setup ## serve the previous release again: make rollback NAME=ihc
	@python -m training.releases.rollback $(NAME)

COUNT ?= 1000
collection: setup ## a set of generated images that describes itself: make collection NAME=ihc COUNT=5000
	@python -m training.collections $(NAME) --count $(COUNT)

clean: ## forget the environment and everything that was built; raw data stays
	rm -rf .venv .dvc/cache .dvc/tmp data/prepared data/gans data/samples data/detectors data/candidates checkpoints models reports dvc_plots mlruns mlartifacts mlflow.db*
