# The environment of the project and what to do with it; all of it through tools/setup_env.py.
# Settings: PYTHON=python3.11  WHEELHOUSE=DIR  TORCH_INDEX=URL  MAX_JOBS=N

PY := .venv/bin/python
# .venv is made with the first of these that fits; a command that does not run is passed over.
PYTHONS := $(or $(PYTHON),python3 python3.12 python3.11 python3.10)
LAUNCHER := $(shell for p in $(PYTHONS); do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

DEMO_NAME := mask-rcnn_r18_fpn_demo_nuclei
DEMO_CONFIG := configs/demo/$(DEMO_NAME).py
DEMO_OUT := work_dirs/$(DEMO_NAME)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs wheel hammer

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

setup:  ## make or update .venv (does nothing where it is up to date)
	@$(if $(LAUNCHER),$(LAUNCHER) tools/setup_env.py,\
	echo 'setup: no Python 3.10, 3.11 or 3.12 among: $(PYTHONS). Install one, or name it: PYTHON=' \
	>&2; exit 2)

demo: setup data/demo_raw  ## train a small model on made-up images, score it; segment a slide
	$(PY) tools/prepare_data.py vrdl data/demo_raw data/demo --overwrite
	$(PY) tools/train.py $(DEMO_CONFIG) --overwrite
	$(PY) tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_OUT)/last_checkpoint)" \
		--format-only --show-dir $(DEMO_OUT)/overlays
	$(PY) tools/score.py data/demo_raw/test_truth.json $(DEMO_OUT)/answer.json
	$(PY) -m nucseg_mmdet.synthetic.slides data/demo_raw/test --out $(DEMO_OUT)/slide.tif --size 1500 --gap 100
	$(PY) tools/segment.py $(DEMO_OUT)/slide.tif --out $(DEMO_OUT)/slide --format geojson csv overlay
	@echo
	@echo 'Answer file: $(DEMO_OUT)/answer.zip'
	@echo 'Overlays:    $(DEMO_OUT)/overlays'
	@echo 'Slide:       $(DEMO_OUT)/slide, by the default model'
	@echo 'Next, with the class data in data/raw:'
	@echo '  $(PY) tools/prepare_data.py vrdl data/raw data/vrdl'
	@echo '  $(PY) tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e08_vrdl.py'

data/demo_raw: | setup
	$(PY) -m nucseg_mmdet.synthetic.fields $@ --seed 0

# Two processes of a thread each are done sooner than one with two threads.
test: setup  ## run the tests; ARGS='tests/slides -x' for some of them
	OMP_NUM_THREADS=1 $(PY) -m pytest $(or $(ARGS),-n 2 --dist loadfile --max-worker-restart 0)

hammer: setup  ## damage, attack and kill everything for half an hour; prints figures
	$(PY) -m tests.hammer

lint: setup  ## check style, spelling, types and the direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -c 'from importlinter.cli import lint_imports; raise SystemExit(lint_imports())'
	.venv/bin/codespell
	$(PY) -m pyright --pythonpath $(PY)

docs: setup  ## build the pages in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

wheel: setup  ## build the wheel, with configs and the default model, in dist/
	$(PY) -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .
