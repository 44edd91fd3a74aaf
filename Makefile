# make demo: train experts on rendered rooms, merge them, print the table.   make test: the tests.   make check: what CI runs.
# More arguments go through ARGS:  make test ARGS="-k heatmap"    make demo ARGS="--help"

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
ARGS ?=

.PHONY: install demo test lint check clean

install: $(STAMP)

# An existing .venv is kept and brought up to date; only its absence asks for $(PYTHON).
$(STAMP): setup.py constraints.txt
	@interpreter='$(PYTHON)'; if test -x $(BIN)/python; then interpreter=$(BIN)/python; fi; \
	"$$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "symerge_dense needs Python 3.10 or newer, but $$interpreter is: $$("$$interpreter" --version 2>&1)." >&2; \
	echo "Name a newer one: make install PYTHON=python3.11 (after 'rm -r .venv' if that folder is the old one)." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/train.py configs/rooms_symerge.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q tests $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(MAKE) test

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find symerge_dense tests tools configs -name __pycache__ -type d -prune -exec rm -rf {} +
