# make demo: train experts on rendered rooms, merge them, print the table.   make test: the tests.   make check: what CI runs.
# make coverage: the tests, and which lines they miss.   make docs: the site, into site/.
# make gpu: what only a GPU can tell; figures in work_dirs/gpu and docs/benchmarks.md.
# make bench: benchmarks of about 13 minutes on two cores, added to docs/benchmarks.md.
# make fuzz: 100,000 damaged files for all readers, some 20 minutes; docs/robustness.md has what came out.
# make torture: jobs killed at 50 random moments and resumed, 40 full disks, 60 failing calls; 40 minutes, by estimate.
# make lock: requirements.lock anew, with hashes, after a change of constraints.txt.   make sbom: what is installed, and its licences.
# More arguments go through ARGS:  make test ARGS="-k heatmap"    make demo ARGS="--help"
# Tests run in two processes where there are two cores. WORKERS says otherwise:  make test WORKERS=0 ARGS=--pdb

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
DOCS_STAMP := .venv/.docs-stamp
ARGS ?=
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
WORKERS ?= $(if $(filter 1,$(CORES)),0,2)
# A file's tests stay in one process, so that what they share is made once. Files go in their order: the longest come early.
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# mmcv asks for opencv-python, albumentations for opencv-python-headless: they install the same files. The latter stays.
ONE_OPENCV := $(BIN)/python -m pip install -q --force-reinstall --no-deps -c constraints.txt opencv-python-headless

.PHONY: install demo test coverage lint check docs bench gpu fuzz torture lock sbom clean

install: $(STAMP)

# An existing .venv is kept and brought up to date; only its absence asks for $(PYTHON).
$(STAMP): setup.py constraints.txt
	@interpreter='$(PYTHON)'; if test -x $(BIN)/python; then interpreter=$(BIN)/python; fi; \
	"$$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "symerge_dense needs Python 3.10 or newer, but $$interpreter is: $$("$$interpreter" --version 2>&1)." >&2; \
	echo "Name a newer one: make install PYTHON=python3.11 (after 'rm -r .venv' if that folder is the old one)." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(ONE_OPENCV)
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/train.py configs/rooms_symerge.py $(ARGS)

test: $(STAMP)
	$(PYTEST) tests $(ARGS)

coverage: $(STAMP)
	$(PYTEST) --cov --cov-report=term tests $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint docs
	$(MAKE) test

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,docs]'
	$(ONE_OPENCV)
	touch $@

bench: $(STAMP)
	$(BIN)/python tools/benchmark.py all --append docs/benchmarks.md $(ARGS)

# The published architecture at full size, from nothing, on rendered rooms: tests, experts, adaptation, NCCL, one step,
# also compiled.
ROOMS = $(foreach part,train unlabelled test,data.$(part).type=Rooms data.$(part).root=work_dirs/gpu/rooms \
	data.$(part).size=288,384 data.$(part).count=32)
GPU_RUN = tools/train.py configs/nyuv2_symerge.py --amp --cfg-options $(ROOMS) base.pretrained=False base.random_init=True \
	experts.folder=work_dirs/gpu/experts experts.recipe.epochs=2 baselines.scales=0.3,
gpu: $(STAMP)
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "make gpu: PyTorch finds no GPU here")'
	$(BIN)/python -m pytest -q -m gpu tests $(ARGS)
	$(BIN)/python $(GPU_RUN) --work-dir work_dirs/gpu/one
	$(BIN)/torchrun --nproc_per_node 1 $(GPU_RUN) adaptation.rounds=30 --work-dir work_dirs/gpu/nccl --launcher pytorch
	$(BIN)/python tools/benchmark.py step nyuv2_symerge --append docs/benchmarks.md
	$(BIN)/python tools/benchmark.py step nyuv2_symerge --append docs/benchmarks.md --cfg-options adaptation.compile=True

fuzz: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python -m fuzz.campaign $(ARGS)

torture: $(STAMP)
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m faults.torture $(ARGS)

# Tools of a release, apart from the package's own environment, which they describe.
RELEASE := .venv-release/bin
$(RELEASE)/uv:
	$(PYTHON) -m venv .venv-release
	$(RELEASE)/python -m pip install -q uv cyclonedx-bom pip-licenses

lock: $(RELEASE)/uv
	$(RELEASE)/uv pip compile -q setup.py --extra dev --extra docs -c constraints.txt --python-version 3.11.9 \
	--python-platform linux --generate-hashes --no-annotate --custom-compile-command 'make lock' -o requirements.lock

# A licence that is written out takes many lines; the first of them names the package.
sbom: $(STAMP) $(RELEASE)/uv
	mkdir -p dist
	$(RELEASE)/cyclonedx-py requirements --output-reproducible -o dist/sbom.json requirements.lock
	{ printf '# Licences of what is installed\n\nBy `make sbom`. None of it is part of this package; pip installs it. '; \
	printf 'Where a package states none in its\nrecord: OpenEXR is under BSD-3-Clause, onedl-mmengine under Apache-2.0, '; \
	printf "cuda-toolkit under NVIDIA's licence.\n\n"; \
	$(RELEASE)/pip-licenses --python $(BIN)/python --format=markdown --order=name --ignore-packages symerge-dense \
	| awk -F'|' '$$2 ~ /[^ ]/' | sed 's/  */ /g; s/---*/---/g'; } > docs/licences.md

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	find symerge_dense tests tools configs docs -name __pycache__ -type d -prune -exec rm -rf {} +
