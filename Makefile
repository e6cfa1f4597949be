# The commands for users and maintainers. They need GNU make 3.81, Python 3.11 (both may be newer)
# and a package index. Everything is installed in .venv, which these rules make, remake and remove.
# Nothing outside this directory is touched.
#
# A line of `## text` is the help for the target or variable on the line after it.
#
# Recipes print nothing of their own on standard output, and do not read standard input. So
# `make run-client < script` prints the replies and no more. (From another directory, use
# `make -s -C DIRECTORY`. Without -s, make itself prints the name of the directory.)

.NOTPARALLEL:

## show this help
help:
	@awk -F '[ :=]+' ' \
	  BEGIN { print "usage: make TARGET [VARIABLE=VALUE ...]" } \
	  /^## / { text = substr($$0, 4); next } \
	  text && /^[A-Z]+ :=/ { value = $$0; sub(/^[^=]*= */, "", value); \
	    variables = variables sprintf("  %-11s  %s [%s]\n", $$1, text, value) } \
	  text && /^[a-z-]+:/ { targets = targets sprintf("  %-11s  %s\n", $$1, text) } \
	  { text = "" } \
	  END { printf "\ntargets:\n%s\nvariables [default]:\n%s", targets, variables }' Makefile

# Variables. With `:=`, make ignores the environment, where HOST is a common name. Only the command
# line of make changes these values.

## address that the server listens on and the client connects to
HOST := 127.0.0.1
## TCP port of both
PORT := 4242
## the client's id; if empty, user name, process id and a random number
ID :=
## program for line editing in run-client, if installed; empty for none
RLWRAP := rlwrap
## further options for the program, split by the shell
ARGS :=
## 1 makes the benchmark quick, and its figures rough
QUICK :=
## how many seeds to simulate
SEEDS := 1000
## one seed to simulate instead, with a trace of what happens
SEED :=
## what a client, a network or a kernel also does: 'reset 3 at 0.5; emfile at 1'
WITH :=
## one pitfall to show in full
N :=
## one step of the ladder to show in full
STEP :=
## file to write the usual code of pitfall N to, as the start of an exercise
START :=
## your own file, to try in place of the usual code
TRY :=
## file for a page that shows simulate SEED=n or pitfalls N=n step by step
REPLAY :=
## interpreter that makes .venv; name another one to make .venv again
PYTHON := python3

GMPY := gmpy2==2.3.2
LINTERS := ruff==0.17.6 mypy==2.4.1

# The programs do not need them, and exporting would expand a `$` in a value.
unexport HOST PORT ID RLWRAP ARGS QUICK SEEDS SEED N STEP START TRY PYTHON

# $(value X) is the typed text, with each `$` in it. `quote` makes it one word of the shell.
quote = '$(subst ','\'',$(1))'
address = --host=$(call quote,$(value HOST)) --port=$(call quote,$(value PORT))
option = $(if $(value $(2)),--$(1)=$(call quote,$(value $(2))))
identity = $(if $(value ID),--id=$(call quote,$(value ID)))
learners = $(call option,start,START) $(call option,try,TRY)
worlds = $(if $(value SEED),--seed=$(call quote,$(value SEED)),--seeds=$(call quote,$(value SEEDS)))
besides = $(call option,with,WITH)
number = $(if $(value N),$(call quote,$(value N)))
page = $(call option,replay,REPLAY)

# The programs take the shell's place (`exec`), so that signals reach them and not a shell.

## run a server, until Ctrl-C
run-server: venv
	@exec .venv/bin/python -m kv server $(address) $(value ARGS)

## run a client: commands from the terminal, a pipe or a file
run-client: venv
	@rlwrap=$(call quote,$(value RLWRAP)); set --; \
	if [ "$$rlwrap" ] && [ -t 0 ] && [ -t 1 ] && [ "$$(stty size 2>&1)" != "0 0" ] && command -v "$$rlwrap" >/dev/null; then \
	  set -- "$$rlwrap" --history-filename=.venv/history; fi; \
	exec "$$@" .venv/bin/python -m kv client $(address) $(identity) $(value ARGS)

## run a service to try: servers for all cores, a registry, a balancer
run-service: venv
	@exec .venv/bin/python -m tests.service $(address) $(value ARGS)

## run the tests
test: venv
	@exec .venv/bin/python -m pytest $(value ARGS)

## show each pitfall with the usual code and with this project's
pitfalls: venv
	@exec .venv/bin/python -m tests.pitfalls $(number) $(learners) $(page) $(value ARGS)

## try nine small servers with fourteen things that clients do to servers
ladder: venv
	@exec .venv/bin/python -m tests.ladder $(call option,step,STEP) $(call option,try,TRY) $(value ARGS)

## make pages of ten pitfalls in gallery/, with the usual code beside this project's
gallery: venv
	@exec .venv/bin/python -m tests.pitfalls --gallery=gallery $(value ARGS)

## watch a server with four clients, for ten seconds; leaves demo.html, a replay
demo: venv
	@exec .venv/bin/python -m tests.demo $(value ARGS)

## run the server in simulated worlds, one for each seed
simulate: venv
	@exec .venv/bin/python -m tests.simulation $(worlds) $(besides) $(page) $(value ARGS)

## measure the server against asyncio and others, in some four minutes
bench: venv
	@exec .venv/bin/python -m tests.bench $(if $(filter-out 0,$(value QUICK)),--quick) $(value ARGS)

## check volume, latency and memory against their limits, in under ten minutes
soak: venv
	@PATIENCE=60 .venv/bin/python -m pytest -s -o python_files='soak_*.py' tests/soak $(value ARGS)
	@exec .venv/bin/python -m tests.simulation $(worlds)

## add gmpy2 to .venv, which makes new messages about five times as fast (optional)
fast: venv
	@echo 'adding $(GMPY) to .venv' >&2; \
	$(pip) $(GMPY) </dev/null >&2 || { echo 'gmpy2 could not be installed' >&2; exit 1; }

## check style, format and types
lint: venv
	@echo '$(LINTERS)' | cmp -s - .venv/linters 2>/dev/null || { \
	  echo 'adding $(LINTERS) to .venv' >&2; \
	  $(pip) $(LINTERS) </dev/null >&2 && echo '$(LINTERS)' >.venv/linters || \
	    { echo 'the linters could not be installed' >&2; exit 1; }; }
	@status=0; \
	.venv/bin/python -m ruff check kv tests || status=1; \
	.venv/bin/python -m ruff format --check kv tests || status=1; \
	.venv/bin/python -m mypy --strict kv || status=1; \
	exit $$status

## remove .venv, all caches, demo.html and gallery/
clean:
	@rm -f .venv/made-from
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache demo.html gallery
	@find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help run-server run-client run-service test pitfalls gallery ladder demo simulate bench soak fast lint
.PHONY: clean venv

# .venv. The file .venv/made-from holds the interpreter's path and a copy of requirements.txt. It is
# written last and removed first. So a .venv is complete if that file is up to date.

pip = .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input

# Prints the interpreter's own path, which starts with a slash, or what is wrong with it. The code
# has to be one line, and Python 2 has to understand it.
probe = import os, sys; \
  v = sys.version_info; \
  new = v >= (3, 11); \
  find = new and __import__("importlib.util").util.find_spec; \
  lacks = new and [name for name in ("venv", "ensurepip") if not find(name)]; \
  print("is Python %d.%d.%d and 3.11 or newer is needed" % v[:3] if not new else \
    "lacks the module %s (on Debian and Ubuntu: apt install python%d.%d-venv)" \
    % (lacks[0], v[0], v[1]) if lacks else os.path.realpath(sys.executable))

# $(error) reports it in one line, before anything is made.
checked = $(if $(filter /%,$(firstword $(1))),$(1),$(error PYTHON=$(value PYTHON) \
  $(or $(1),is not a Python that can be run). To use another: \
  make $(MAKECMDGOALS) PYTHON=/path/to/python3))
chosen = $(call checked,$(shell $(call quote,$(value PYTHON)) -E -s -c '$(probe)' \
  2>/dev/null </dev/null))
recorded = $(shell python=$$(head -n 1 .venv/made-from 2>/dev/null) && [ -x "$$python" ] && \
  printf '%s\n' "$$python")
interpreter = $(or $(if $(filter-out command,$(firstword $(origin PYTHON))),$(recorded)),$(chosen))

# Two terminals may get here at once, one for a server and one for a client. With the lock, the
# second waits for the first. The system releases the lock when this shell ends. The output of
# `python -m venv` is shown only if it fails, because on Ctrl-C it prints a traceback.
venv:
	@python=$(call quote,$(interpreter)); \
	inputs() { printf '%s\n' "$$python"; cat requirements.txt; }; \
	whole() { [ -x .venv/bin/python ] && inputs | cmp -s - .venv/made-from 2>/dev/null; }; \
	if whole; then exit; fi; \
	echo "making .venv with $$python" >&2; \
	trap 'exit 130' HUP INT TERM; \
	exec 9<requirements.txt </dev/null >&2; \
	"$$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null; \
	if whole; then exit; fi; \
	trap 'rm -rf .venv; echo ".venv could not be made"' EXIT; \
	rm -f .venv/made-from && rm -rf .venv || exit; \
	said=$$("$$python" -m venv .venv 2>&1) || { printf '%s\n' "$$said"; exit 1; }; \
	$(pip) -r requirements.txt && inputs >.venv/made-from || exit; \
	trap - EXIT
