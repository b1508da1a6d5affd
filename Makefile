# Everything runs in a virtual environment of its own, with the versions of constraints.txt. `make` lists the targets.

PYTHON ?= python3
# What `make demo` and `make test` pass on to their program, for example ARGS="-k ssim -x".
ARGS ?=
# The user's own images for `make demo`; empty: the surfaces that scikit-image carries.
DATA ?=
# SYSTEM_SITE=1 keeps the torch (and all else) that PYTHON already has; only what is missing is installed.
SYSTEM_SITE ?=
# Where `make gpu-check` writes.
OUTPUT ?= gpu-check
# OFFLINE=1 installs the project alone and fetches nothing.
OFFLINE ?=

VENV ?= $(if $(SYSTEM_SITE),.venv-system,.venv)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(if $(SYSTEM_SITE),,-c constraints.txt)
CXX_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' 2>/dev/null)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test bench gpu-check check check-format check-lint check-types check-imports check-cxx format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Variables: PYTHON=python3.12  DATA=folder  ARGS="..."  SYSTEM_SITE=1 (keep the torch of PYTHON)  OFFLINE=1 (fetch nothing)'

demo: $(VENV)/.ready-demo ## Train, evaluate and report on the embedded surfaces, or on your own images with DATA=folder
	$(BIN)/twostage demo $(if $(DATA),--data '$(DATA)') $(ARGS)

test: $(VENV)/.ready-dev ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.ready-bench ## Check and time every op and step beside other packages; about ten minutes on two cores
	$(BIN)/python -m benchmarks run $(ARGS)
	$(BIN)/python -m benchmarks report

# It builds the extension itself, so that a build that fails is one finding among others; with SYSTEM_SITE it runs in
# PYTHON as it is and installs nothing.
gpu-check: ## Build, test, time and profile on this machine's GPU in nine minutes; writes the folder OUTPUT
	@test -e /dev/nvidia0 || nvidia-smi -L >/dev/null 2>&1 || { echo 'make gpu-check: there is no NVIDIA GPU here' >&2; exit 2; }
	$(if $(SYSTEM_SITE),,@$(MAKE) --no-print-directory $(VENV)/.ready-bench)
	PYTHONPATH=kernels $(if $(SYSTEM_SITE),$(PYTHON),$(BIN)/python) -m benchmarks gpu-check --output '$(OUTPUT)'

check: check-format check-lint check-types check-imports check-cxx ## Run ruff, mypy, import-linter and clang-format

check-format: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .

check-types: $(VENV)/.ready-dev
	$(BIN)/mypy twostage kernels/twostage_kernels tests $(if $(wildcard benchmarks/*.py),benchmarks)

check-imports: $(VENV)/.ready-dev
	$(BIN)/lint-imports

check-cxx: $(VENV)/.ready-dev
	$(if $(CXX_SOURCES),$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES))

format: $(VENV)/.ready-dev ## Rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(if $(CXX_SOURCES),$(BIN)/clang-format -i $(CXX_SOURCES))

setup: $(VENV)/.ready-dev ## Make the environment with every extra, and nothing else

clean: ## Remove what was built and cached; the environment stays
	rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .benchmarks
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# [dev] and [bench] hold all of [demo]. The lpips package is data here; what it and piq require (torchvision) is not
# wanted.
$(VENV)/.ready-%: $(BIN)/python pyproject.toml setup.py constraints.txt $(CXX_SOURCES)
	$(if $(OFFLINE),,$(PIP) 'setuptools>=77' 'pybind11>=2.13')
	$(PIP) --no-build-isolation $(if $(OFFLINE),--no-index --no-deps -e .,-e '.[$*]')
	$(if $(OFFLINE),,$(PIP) --no-deps lpips $(if $(filter bench,$*),piq))
	@touch $@ $(if $(filter dev bench,$*),$(VENV)/.ready-demo)

# With SYSTEM_SITE, pip and setuptools are those of PYTHON too: venv would bring an older setuptools. A PYTHON that is
# itself a virtual environment hands on only its base's packages: outer.pth adds its own.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'make: $(PYTHON) was not found; name a Python 3.10 or later: make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: Python 3.10 or later is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1); name another: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo 'make: $(PYTHON) has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv)' >&2; exit 1; }
	@command -v $(CXX) >/dev/null || { echo 'make: no C++ compiler: $(CXX) was not found; install one (Debian and Ubuntu: apt-get install g++), or name it: make CXX=...' >&2; exit 1; }
	$(PYTHON) -m venv $(if $(SYSTEM_SITE),--system-site-packages --without-pip) $(VENV)
	$(if $(SYSTEM_SITE),@$(PYTHON) -c 'import site; print("import site;", "; ".join(f"site.addsitedir({p!r})" for p in site.getsitepackages()))' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth")
