# Two commands: make run, make test. Everything they need they set up themselves, once.
#
# Python packages go into .venv, which nothing has to activate. Debian packages are installed only where a
# program is missing, by packaging/install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Debian keeps nginx where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin

# $(call need,program,packages): install the packages unless the program is there.
need = command -v $(1) >/dev/null || packaging/install $(2)

# What tests/acceptance runs, as FILE=PACKAGE. Where there is no apt-get those tests are skipped.
REAL_PROGRAMS := /usr/sbin/apache2=apache2-bin /usr/bin/git=git /usr/share/gitweb/gitweb.cgi=gitweb \
	/usr/lib/cgit/cgit.cgi=cgit /usr/bin/php-cgi=php-cgi /usr/share/perl5/CGI.pm=libcgi-pm-perl \
	/usr/lib/cgi-bin/awstats.pl=awstats

.PHONY: help run test check bench docs clean compiled

help:
	@echo "make run    serve the CGI scripts of scenarios/cgi.toml"
	@echo "make test   static checks, then all tests"
	@echo "make check  static checks only"
	@echo "make bench  compare with uWSGI and fcgiwrap (4 minutes)"
	@echo "make docs   write the tables of docs/ anew from the options in the code"
	@echo "make clean  remove whatever the other commands have made"

run: compiled
	@exec $(BIN)/pyemperor run scenarios/cgi.toml

# As pip does with what it installs: with PYTHONDONTWRITEBYTECODE every start would compile everything.
compiled: $(VENV)/installed
	@$(BIN)/python -m compileall -q actors cli protocol

check: $(VENV)/developer
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The tests come last, so that their summary closes the output. Many of them wait for a server: four at a time
# are done in half the time, also on two cores.
test: compiled check
	@$(call need,nginx,nginx-light)
	@$(call need,perl,perl)
	@packages=$$(for one in $(REAL_PROGRAMS); do [ -e "$${one%=*}" ] || echo "$${one#*=}"; done); \
		[ -z "$$packages" ] || ! command -v apt-get >/dev/null || packaging/install $$packages
	$(BIN)/pytest -n 4 --dist worksteal

bench: $(VENV)/bench compiled
	@$(call need,nginx,nginx-light)
	@$(call need,uwsgi,uwsgi-core)
	@$(call need,fcgiwrap,fcgiwrap)
	@$(call need,wrk,wrk)
	@$(call need,gcc,gcc libc6-dev)
	@$(call need,perl,perl)
	$(BIN)/python -m bench

docs: $(VENV)/installed
	$(BIN)/python -P docs/tables.py

clean:
	rm -rf $(VENV) build dist *.egg-info bench/out .coverage* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find scenarios/run -mindepth 1 ! -name .gitignore -delete

# ---- the virtual environment: each file says that a part of it is complete -------------------------------

# pip 25.1 is the first that installs dependency groups.
$(VENV)/pip:
	@$(call need,$(PYTHON),python3)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, not $$($(PYTHON) --version). Name it: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || packaging/install python3-venv
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/pip
	@echo "Installing PyEmperor and the libraries that it uses ..."
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/developer: $(VENV)/installed
	@echo "Installing what the checks and tests use ..."
	@$(BIN)/python -m pip install -qq --group dev
	@touch $@

$(VENV)/bench: $(VENV)/developer
	@echo "Installing what the benchmark uses ..."
	@$(BIN)/python -m pip install -qq --group bench
	@touch $@
