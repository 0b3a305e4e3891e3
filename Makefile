# Targets; every one of them builds .venv when it is missing or older than setup.cfg.
#
#   make figures    train the presets and draw every figure and table (QUICK=1: few epochs)
#   make test       run the tests, one process per core (PYTEST_ARGS="-k noise" chooses some)
#   make bench      time hypergradients here, in torch, JAX and SciPy (QUICK=1: small images)
#   make faults     hold planted faults against the reference (SEEDS=500: false alarms instead)
#   make errors     hold stated errors against the truth (PROBLEMS=2000 HARD=700)
#   make kills      kill training (KILLS=100 times) and figures (a fifth of that), and resume them
#   make fuzz       call all that is public with what does not fit (CALLS=10000 times)
#   make verify     measure every identity and compare it with its bound
#   make lint       check the style of the code
#   make install    only build .venv, with the command .venv/bin/refimpl
#   make clean      delete figures, results and caches; .venv stays
#
# PYTHON3=python3.12 makes .venv with another interpreter than python3.

PYTHON3 ?= python3
PROBLEMS ?= 2000
HARD ?= 700
KILLS ?= 100
CALLS ?= 10000
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check

.PHONY: help figures test bench faults errors kills fuzz verify lint install clean

help:
	@sed -n 's/^#   make/make/p' Makefile

figures: .venv/.installed
	$(PYTHON) -m figures $(if $(QUICK),--quick)

# One process per core, so one thread in each.
test: .venv/.installed-test
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

bench: .venv/.installed-test
	$(PYTHON) -m figures.benchmarks $(if $(QUICK),--quick) $(BENCH_ARGS)

faults: .venv/.installed-test
	PYTHONPATH=tests $(PYTHON) -m faults $(if $(SEEDS),--seeds $(SEEDS)) $(FAULTS_ARGS)

errors: .venv/.installed-test
	PYTHONPATH=tests $(PYTHON) -m errors --problems $(PROBLEMS) --hard $(HARD) $(ERRORS_ARGS)

# A fifth as many of figures, with few epochs, which take longer.
kills: .venv/.installed-test
	PYTHONPATH=tests $(PYTHON) -m kills --training $(KILLS) --figures $$(( $(KILLS) / 5 ))

fuzz: .venv/.installed-test
	PYTHONPATH=tests $(PYTHON) -m fuzz --calls $(CALLS)

verify: .venv/.installed
	$(PYTHON) -m refimpl verify

lint: .venv/.installed-test
	$(PYTHON) -m ruff check .

install: .venv/.installed

clean:
	rm -rf build results figures/output figures/output-quick .coverage .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.installed: setup.cfg pyproject.toml
	@$(PYTHON3) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	    "$(PYTHON3) is Python %d.%d, expected 3.11 or later; " % v[:2] \
	    + "name another one, for example: make PYTHON3=python3.11")'
	$(PYTHON3) -m venv .venv
	$(PIP) --editable .
	@touch $@

# Tests compare with automatic differentiation, so they need the backends; the main job does not.
.venv/.installed-test: .venv/.installed
	$(PIP) --editable '.[test,backends]'
	@touch $@
