# `make` lists the commands. Everything is installed into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
# One process per core; a file's tests stay together; tests/conftest.py orders the files.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

install: $(STAMP)  ## install everything into .venv

demo: $(STAMP)  ## build a catalog from this machine's own documentation, train four times, write a report (minutes)
	$(BIN)/clustermix demo

unit: $(STAMP)  ## the fast tests: no processes, browser, Prefect or documentation (a minute)
	$(PYTEST) -m "not slow and not faults and not scale and not system"

test: $(STAMP)  ## the tests (minutes; WORKERS=4 runs them in four processes)
	$(PYTEST)

coverage: $(STAMP)  ## the fast tests, and the lines that they do not run
	$(PYTEST) -m "not slow and not faults and not scale and not system" --cov --cov-report=term-missing

slow: $(STAMP)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

faults: $(STAMP)  ## the reliability suite: damage, signals, full disks; writes docs/reliability.md (20 minutes)
	$(PYTEST) -n 3 tests/faults -m faults --reliability docs/reliability.md  # many trials wait

scale: $(STAMP)  ## a build on three machines made of namespaces, which are killed; needs root (half an hour)
	$(BIN)/python -m pytest tests/scale -m scale --timeout=1800

check: $(STAMP)  ## format, lint, spelling, types, import contracts, file sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell data_catalog pipeline trainer flows tests benchmarks examples docs *.md
	$(BIN)/mypy
	$(BIN)/lint-imports
	@long=$$(find data_catalog pipeline trainer flows tests benchmarks docs examples -name "*.py" | xargs wc -l | awk '$$2 != "total" && $$1 > 350'); \
	if [ -n "$$long" ]; then echo "files over 350 lines:"; echo "$$long"; exit 1; fi

docs: $(STAMP)  ## the documentation: its generated pages, and all of it as a site in site/
	$(BIN)/python docs/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reproduce: $(STAMP)  ## the experiments of docs/results.md, reduced; needs ../shared/corpus (up to an hour)
	$(BIN)/python -m benchmarks.experiments --reduced

bench: $(STAMP)  ## all benchmarks (hours); results go to benchmarks/results
	$(BIN)/python -m benchmarks

pins:  ## resolve the newest versions of all dependencies: constraints.txt, hashes.txt, THIRD_PARTY.md
	rm -rf .venv-pins && $(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install --quiet -e '.[dev]'
	grep '^#' constraints.txt > .venv-pins/constraints.txt
	.venv-pins/bin/python -m pip freeze --exclude-editable >> .venv-pins/constraints.txt
	mv .venv-pins/constraints.txt constraints.txt
	.venv-pins/bin/python docs/make_licences.py
	.venv-pins/bin/python -m pip install --quiet uv
	.venv-pins/bin/uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate constraints.txt -o hashes.txt
	rm -rf .venv-pins

fmt: $(STAMP)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: help install demo unit test coverage slow faults scale check docs reproduce bench pins fmt
