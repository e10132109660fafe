# SPDX-License-Identifier: Apache-2.0
# Everything runs in .venv (or .venv-paddle26, .venv-docs) inside this directory; nothing else on the machine is touched.
#   make test PYTHON=python3.12             the Python that a new environment is made with
#   make test PYTEST_ARGS="-k rank -x"      passed on to pytest; DEMO_ARGS does the same for the demo

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=

VENV := .venv
VENV26 := .venv-paddle26
VENVDOCS := .venv-docs
PIP_INSTALL := -m pip --disable-pip-version-check --no-input install --progress-bar off --no-deps --only-binary=:all:

.PHONY: help
help: ## show the targets
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do
		printf '%-22s %s\n' "$$name" "$$text"
	done

.PHONY: venv
venv: $(VENV)/.installed ## create .venv and install the lock

.PHONY: demo
demo: $(VENV)/.installed ## run the demonstration
	@$(VENV)/bin/ppcls-ise demo $(DEMO_ARGS)

.PHONY: test
test: $(VENV)/.installed ## run the tests
	@$(VENV)/bin/python -m pytest -m "not long" -n 2 --dist loadfile $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.installed ## run the long repetitions: kills, fuzzing, whole chains
	@$(VENV)/bin/python -m pytest -m long $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.installed ## run the tests that take no training
	@$(VENV)/bin/python -m pytest -m "not slow and not long" $(PYTEST_ARGS)

.PHONY: test-paddle26
test-paddle26: $(VENV26)/.installed ## run all tests on Paddle 2.6.2, in .venv-paddle26
	@$(VENV26)/bin/python -m pytest $(PYTEST_ARGS)

.PHONY: test-develop
test-develop: ppcls-home $(VENV)/.installed ## run all tests on the PaddleClas sources at PPCLS_HOME
	@export PPCLS_HOME="$$(cd "$$PPCLS_HOME" && pwd)"
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

.PHONY: test-gpu
test-gpu: $(VENV)/.installed ## prove the installation (on a card, or on a CPU what needs none)
	@$(VENV)/bin/python -m ppcls_ise check

.PHONY: ppcls-home
ppcls-home:
	@if [ ! -f "$${PPCLS_HOME:-}/ppcls/engine/engine.py" ]; then
		echo "PPCLS_HOME is '$${PPCLS_HOME:-}', where there is no ppcls/engine/engine.py." >&2
		echo "Set it to a checkout of PaddleClas: make test-develop PPCLS_HOME=../PaddleClas" >&2
		exit 1
	fi

.PHONY: lint
lint: $(VENV)/.installed ## ruff, mypy and the floors
	@$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy
	PYTHONPATH=. $(VENV)/bin/lint-imports

.PHONY: docs
docs: $(VENVDOCS)/.installed ## build the site of the documents, both languages, into site/
	@NO_MKDOCS_2_WARNING=1 $(VENVDOCS)/bin/python -m mkdocs build --strict

.PHONY: clean
clean: ## remove caches and build files (not results, not the environments)
	@rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## clean, and remove the environments
	@rm -rf $(VENV) $(VENV26) $(VENVDOCS)

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(install)

$(VENV26)/.installed: requirements-paddle26.txt requirements-dev.txt
	$(install)

$(VENVDOCS)/.installed: requirements-docs.txt
	@echo "[$(VENVDOCS)] installing $^ (30 MB from PyPI)"
	$(PYTHON) -m venv --clear $(VENVDOCS)
	grep '^setuptools==' $^ | $(VENVDOCS)/bin/python $(PIP_INSTALL) --quiet -r /dev/stdin
	$(VENVDOCS)/bin/python $(PIP_INSTALL) --quiet --no-binary=jieba --no-build-isolation -r $^
	touch $@

# Installs the locks (the prerequisites) into the environment that holds the stamp (the target).
# .incomplete stands while pip runs: an environment that an interruption left half-made is made anew.
define install
@venv='$(@D)'
if [ -e "$$venv/.incomplete" ] || ! "$$venv/bin/python" -c 'import pip, sys; assert (3, 10) <= sys.version_info < (3, 13)' 2>/dev/null; then
	if ! version="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; then
		echo "'$(PYTHON)' does not run. Install Python 3.10, 3.11 or 3.12, or name one: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2
		exit 1
	fi
	case "$$version" in
	3.10 | 3.11 | 3.12) ;;
	*)
		echo "'$(PYTHON)' is Python $$version; this project needs 3.10, 3.11 or 3.12. Name one: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2
		exit 1
		;;
	esac
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then
		echo "Python $$version cannot create environments here. Install the package python$$version-venv: apt-get install python$$version-venv" >&2
		exit 1
	fi
	echo "[$$venv] creating it with Python $$version"
	$(PYTHON) -m venv --clear "$$venv"
fi
touch "$$venv/.incomplete"
echo "[$$venv] installing $^ (up to 400 MB from PyPI, a few minutes the first time)"
"$$venv/bin/python" $(PIP_INSTALL) $(^:%=-r %) |
	sed -u -nE '/\.metadata /d; s/^ *(Downloading [^ ]+\.whl.*)/  \1/p; s/^(Installing) collected packages.*/  \1/p'
# The command ppcls-ise, of the files as they are here.
"$$venv/bin/python" $(PIP_INSTALL) --quiet --no-index --no-build-isolation -e .
# Paddle expects libgomp.so.1 from the system, and a bare system has none. scikit-learn brings one: link it next to
# libdnnl.so.3, which looks there, and have every start of this environment load that library first.
if ! "$$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
	site="$$("$$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
	(cd "$$site/paddle/libs" && ln -sf ../../scikit_learn.libs/libgomp-*.so.* libgomp.so.1)
	echo 'import ctypes, os, sysconfig; ctypes.CDLL(os.path.join(sysconfig.get_path("platlib"), "paddle", "libs", "libdnnl.so.3"))' >"$$site/paddle-openmp.pth"
	echo "[$$venv] this system has no libgomp.so.1 (package libgomp1): using the one of scikit-learn"
fi
if ! "$$venv/bin/python" -W ignore -c 'import zlib, paddle'; then
	echo "[$$venv] PaddlePaddle does not load (see above)" >&2
	exit 1
fi
rm "$$venv/.incomplete"
touch "$@"
echo "[$$venv] ready"
endef
