# A fresh Debian machine with Python 3.11 or later is enough:
#
#   make run     serve the example company (schema/example.ldif) on inet:127.0.0.1:10040
#   make check   lint, types, and every test that needs no server: the inner loop
#   make test    every behaviour once; as root it installs the directory servers and the Postfix that the tests start
#   make test-all  the same, and the long ones (alone: make long): every product, fuzzing, abuse, benchmarks in small
#   make mutants a sample of faults in the core, and which tests see each of them
#   make coverage  `make test` with the lines and branches that no test reaches
#   make lint    ruff and mypy
#   make conformance [PAIRS=2000] [SEED=N]   generated policies, natively and through ldappolicy, in real Postfix
#   make bench [QUICK=1] [PIN=1] [ONLY="speed memory postfwd postfix"]   how fast, beside what else there is
#   make bench-instructions [UPDATE=1]   bytecodes and instructions of a request
#   make bench-directory [QUICK=1]   what a directory is asked, and how soon changes are in force
#   make fuzz [SECONDS=60] [TARGET=NAME] [SEED=1]   mutated inputs for every parser, so long each
#   make wheels  what deploy/Dockerfile installs
#   make clean   back to a fresh checkout

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What an installation depends on; the package itself is installed in place.
SOURCES := pyproject.toml ldappolicy/__init__.py

# The servers that the tests start privately.
SERVERS := slapd ldap-utils 389-ds-base libnss3-tools samba-ad-dc samba-ad-provision samba-dsdb-modules \
    samba-vfs-modules winbind python3-samba iproute2 krb5-user libsasl2-modules-gssapi-mit postfix postfix-ldap \
    prometheus strace groff-base valgrind
# What bind = "gssapi" takes to install, and be tested.
KERBEROS := gcc libc6-dev python3-dev libkrb5-dev

# What starts a Docker engine for the composed stack; an engine or a compose command that is there stays as it is.
ENGINE = $(if $(shell command -v dockerd),,docker.io) \
    $(if $(shell docker compose version 2>/dev/null),,docker-compose) iptables debootstrap

# Processes of the tests: twice as many as there are processors, since who starts servers waits more than it computes.
JOBS ?= $(shell expr 2 \* $$(nproc))
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: run check test long test-all test-requirements coverage mutants lint conformance bench bench-directory bench-instructions fuzz wheels clean

run: $(VENV)/.installed
	$(BIN)/ldappolicy -c deploy/example.toml serve

test-requirements: $(VENV)/.installed-dev
	@.ci/packages "some tests will be skipped" $(SERVERS) $(KERBEROS) || true
	@.ci/packages "the composed stack will be tested on native servers only" $(ENGINE) || true
	@$(BIN)/python -c 'import gssapi' 2>/dev/null \
	    || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[gssapi]' \
	    || echo "the tests of bind = \"gssapi\" will be skipped" >&2

check: JOBS = $(shell nproc)
check: lint
	$(PYTEST) -m "not servers and not long"

test: test-requirements
	$(PYTEST) -m "not long" --durations=20

long: test-requirements
	$(PYTEST) -m long --durations=20

test-all: test long

coverage: test-requirements
	$(PYTEST) -m "not long" --cov --cov-report=term

mutants: test-requirements
	$(PYTEST) -m "not long" --cov --cov-context=test --cov-report= --junitxml=build/tests.xml
	$(BIN)/python -m tests.mutants

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

conformance: $(VENV)/.installed-dev
	@.ci/packages "a private Postfix is needed" postfix postfix-ldap
	$(BIN)/python -m tests.conformance $(if $(PAIRS),--pairs $(PAIRS)) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.installed-dev
	@.ci/packages "some rows will be left out" gcc libc6-dev slapd ldap-utils postfix postfix-ldap postfwd || true
	@$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(PIN),--pin) $(ONLY:%=--only %)

bench-instructions: $(VENV)/.installed-dev
	@.ci/packages "the processor's instructions are counted where perf has a counter only" valgrind || true
	@$(BIN)/python -m tests.bench instructions $(if $(UPDATE),--update)

bench-directory: $(VENV)/.installed-dev
	@.ci/packages "private directory servers are needed" $(SERVERS)
	$(BIN)/python -m tests.bench directory $(if $(QUICK),--quick)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TARGET),--target $(TARGET)) \
	    $(if $(SEED),--seed $(SEED))

wheels: $(VENV)/.installed
	rm -rf build/wheels
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir build/wheels . pip

# Debian packs ensurepip separately (python3-venv): without it `python3 -m venv` leaves half a folder behind.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || .ci/packages "Python 3.11 or later is needed (set PYTHON=... if it has another name)" python3 python3-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || .ci/packages "a virtual environment is needed" python3-venv
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find ldappolicy tests -name __pycache__ -type d -prune -exec rm -rf {} +
