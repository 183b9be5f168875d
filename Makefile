# make train   sets up .venv and trains configs/cnn.py      ARGS="--config.train.epochs=1"
# make test    sets up .venv and runs the tests             ARGS="tests/test_steps.py -x"
# make smoke   sets up .venv and takes two training steps, as fast as that goes
# make multihost   trains as two processes of two devices, as one of four, and compares
# make bench       compares training with other libraries   ARGS="--networks=cnn3 --batch_sizes=128"
# PYTHON=python3.12 names the interpreter; without it the first supported one is taken.

VENV := .venv
CONFIG := configs/cnn.py
WORKDIR := runs/$(basename $(notdir $(CONFIG)))

.PHONY: train test smoke multihost bench

train: $(VENV)/.train
	$(VENV)/bin/python -m neptune_jax.main --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

# Three at once also on two cores: they wait about as often as they compute.
test: $(VENV)/.test
	$(VENV)/bin/python -m pytest --numprocesses=3 --dist=worksteal $(ARGS)

smoke: $(VENV)/.train
	@folder=$$(mktemp -d) && $(VENV)/bin/python -m neptune_jax.main --config=$(CONFIG) \
	    --config.data.name=fashion_mnist_mini --config.data.dir=$$folder/data \
	    --config.train.steps=2 --workdir=$$folder/run $(ARGS); status=$$?; \
	    rm -rf "$$folder"; exit $$status

multihost: $(VENV)/.train
	$(VENV)/bin/python -m tests.stress.hosts

bench: $(VENV)/.bench
	$(VENV)/bin/python -m experiments.benchmarks.training $(ARGS)
	$(VENV)/bin/python -m experiments.benchmarks.training --report

$(VENV)/.bench: requirements-bench.txt $(VENV)/.train
	@echo 'Installing requirements-bench.txt into $(VENV)'
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

$(VENV)/.train: requirements.txt $(VENV)/pyvenv.cfg
	@echo 'Installing requirements.txt into $(VENV)'
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.test: requirements-dev.txt $(VENV)/.train
	@echo 'Installing requirements-dev.txt into $(VENV)'
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Where PYTHON is given and .venv is of another version, .venv is made again.
ifdef PYTHON
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
asked := $(call version,$(PYTHON))
ifneq ($(asked),)
ifneq ($(asked),$(call version,$(VENV)/bin/python))
$(shell rm -rf $(VENV))
endif
endif
endif

$(VENV)/pyvenv.cfg:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	            2>/dev/null; then \
	        echo "Making $(VENV) with $$($$python --version)"; \
	        $$python -m venv $(VENV) >/dev/null 2>&1 && exit 0; \
	        rm -rf $(VENV); \
	        $$python -m venv --without-pip $(VENV) && $(pip-from-debian) && exit 0; \
	        rm -rf $(VENV); \
	        echo 'error: that Python has no venv; on Debian and Ubuntu: apt install python3-venv' >&2; \
	        exit 2; \
	    fi; \
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
