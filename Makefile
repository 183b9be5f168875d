# make train   sets up .venv and trains configs/cnn.py      ARGS="--config.train.epochs=1"
# make test    sets up .venv, lints, and runs the tests     ARGS="tests/learning/test_steps.py -x"
# make lint    checks style, formatting, the floors of the package, and types
# make smoke   sets up .venv and takes two training steps, as fast as that goes
# make stress      runs the tests that are too long for `make test`, more than an hour
# make multihost   trains as two processes of two devices, as one of four, and compares
# make bench       compares training with other libraries   ARGS="--networks=cnn3 --batch_sizes=128"
# PYTHON=python3.12 names the interpreter; without it the newest supported one is taken.

VENV := .venv
CONFIG := configs/cnn.py
WORKDIR := runs/$(basename $(notdir $(CONFIG)))

.PHONY: train test lint smoke stress multihost bench

train: $(VENV)/.train
	$(VENV)/bin/python -m neptune_jax.main --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

# Three at once also on two cores: they wait about as often as they compute.
test: lint
	$(VENV)/bin/python -m pytest --numprocesses=3 --dist=worksteal $(ARGS)

lint: $(VENV)/.dev
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m mypy

smoke: $(VENV)/.train
	@folder=$$(mktemp -d) && $(VENV)/bin/python -m neptune_jax.main --config=$(CONFIG) \
	    --config.data.name=fashion_mnist_mini --config.data.dir=$$folder/data \
	    --config.train.steps=2 --workdir=$$folder/run $(ARGS); status=$$?; \
	    rm -rf "$$folder"; exit $$status

stress: $(VENV)/.dev multihost
	$(VENV)/bin/python -m tests.stress.fuzz --cases=20000
	$(VENV)/bin/python -m tests.stress.tracking --kills=10
	$(VENV)/bin/python -m tests.stress.requests --requests=10000
	$(VENV)/bin/python -m tests.stress.kills --kills=200
	$(VENV)/bin/python -m tests.stress.sweeps --kills=30

multihost: $(VENV)/.train
	$(VENV)/bin/python -m tests.stress.processes

bench: $(VENV)/.bench
	$(VENV)/bin/python -m experiments.benchmarks.training $(ARGS)
	$(VENV)/bin/python -m experiments.benchmarks.training --report

$(VENV)/.train: requirements.txt $(VENV)/pyvenv.cfg
	@echo 'Installing requirements.txt into $(VENV)'
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev $(VENV)/.bench: $(VENV)/.%: requirements-%.txt pyproject.toml $(VENV)/.train
	@echo 'Installing $< into $(VENV)'
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Python's version as 3.12; nothing if it does not run, like pyenv's shims of versions not chosen.
version-of = $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null

# Where PYTHON is given and .venv is of another version, .venv is made again.
ifdef PYTHON
ifneq ($(shell $(call version-of,$(PYTHON))),$(shell $(call version-of,$(VENV)/bin/python)))
.PHONY: $(VENV)/pyvenv.cfg
endif
endif

# From 3.12 on there is a newer JAX, which is faster on a CPU.
PYENV := $${PYENV_ROOT:-$$HOME/.pyenv}/versions
PYTHONS := python3.13 python3.12 $(PYENV)/3.13.*/bin/python $(PYENV)/3.12.*/bin/python \
    python3 python3.11 $(PYENV)/3.11.*/bin/python

$(VENV)/pyvenv.cfg:
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	    version=$$($(call version-of,$$python)); \
	    case $$version in 3.11|3.12|3.13) ;; *) continue ;; esac; \
	    echo "Making $(VENV) with $$($$python --version)"; \
	    if [ "$$version$(PYTHON)" = 3.11 ]; then \
	        echo 'Python 3.12 or 3.13 would train faster on a CPU: JAX 0.12 does 1,887 images/s of cnn3,' \
	            'the newest JAX for 3.11 does 1,648 (docs/speed.md)'; \
	    fi; \
	    rm -rf $(VENV); \
	    $$python -m venv $(VENV) >/dev/null 2>&1 && exit 0; \
	    rm -rf $(VENV); \
	    $$python -m venv --without-pip $(VENV) && $(pip-from-debian) && exit 0; \
	    rm -rf $(VENV); \
	    echo 'error: that Python has no venv; on Debian and Ubuntu: apt install python3-venv' >&2; \
	    exit 2; \
	done; \
	echo 'error: $(or $(PYTHON),python3) is no Python 3.11, 3.12 or 3.13; name one:' \
	    'make $(or $(MAKECMDGOALS),train) PYTHON=/path/to/python3.12' >&2; \
	exit 2

# Debian and Ubuntu leave pip out of their Python. The package that has it is unpacked, not installed.
define pip-from-debian
( folder=$$(mktemp -d) && cd $$folder && apt-get download -qq python3-pip-whl 2>/dev/null && \
    dpkg-deb -x *.deb . && cd '$(CURDIR)' && \
    $(VENV)/bin/python $$(echo $$folder/usr/share/python-wheels/pip-*.whl)/pip install --quiet pip; \
    status=$$?; rm -rf $$folder; exit $$status )
endef
