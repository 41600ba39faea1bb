# Everything runs in .venv, which is made on first use and again whenever pyproject.toml changes.
# Another interpreter: make test PYTHON=python3.12.  Arguments for pytest: make test ARGS="-k contract".
# Against another commit: make bench AGAINST=HEAD~5 ARGS="--row append"; ARGS=--help says how long it takes.

PYTHON ?= python3
ARGS ?=
AGAINST ?=

venv := .venv
python := $(venv)/bin/python
installed := $(venv)/.installed
page_tools := node_modules/.installed
# Many tests wait for a lease, a restart or a process, so there are more workers than the two cores of a small machine.
pytest := $(python) -m pytest -n 4 --dist worksteal

# Without bytecode each of the hundreds of processes that tests start would compile all the code again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-deployments soak check format bench bench-peers bench-live bench-cluster bench-history bench-page docs pictures sizes clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(installed) ## make .venv with the package and everything the other targets need

$(installed): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; choose one with PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(venv) with $$($(PYTHON) --version); this takes a minute, once."
	@$(PYTHON) -m venv $(venv)
	@$(python) -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	@touch $@

# What checks the page's JavaScript; afterwards `make check` needs no network.
$(page_tools): package.json package-lock.json | $(installed)
	@echo "Installing what checks the page's JavaScript; this takes a quarter of a minute, once."
	@$(python) -m tests.page.javascript install

demo: $(installed) ## check all at once (the page: ci-eventstore demo): run a real command through the store, follow it, kill the server; run controllers; compare
	@$(python) examples/demo.py

test: $(installed) ## run all tests but the slow ones
	@$(pytest) -m "not slow" $(ARGS)

test-all: $(installed) ## run all tests, with as many examples as CI's slow ones get
	@$(pytest) --hypothesis-profile=thorough $(ARGS)

test-deployments: $(installed) ## run the suites on every deployment, and every fault on each; write docs/deployments.md
	@$(python) -m tests.deployments.report

soak: $(installed) ## break all there is under fifty writers and six controllers, and try to leak a secret, for an hour
	@CI_EVENTSTORE_SOAK=1 $(python) -m pytest tests/integration/store/test_chaos.py \
		tests/integration/store/test_controller_chaos.py tests/unit/writer/test_no_leaks.py \
		tests/unit/writer/test_secret_index.py tests/integration/store/test_replay.py tests/integration/store/test_moving_histories.py \
		tests/integration/store/test_retention.py tests/integration/store/test_damage.py \
		tests/integration/store/test_rebuild_in_use.py tests/integration/store/test_sealing.py \
		tests/integration/deployments/test_failovers.py tests/integration/deployments/test_moves.py $(ARGS)

check: $(installed) $(page_tools) ## check format, lint, types and the structure of the code, Python's and JavaScript's
	@$(python) -m ruff format --check .
	@$(python) -m ruff check .
	@$(python) -m mypy
	@$(python) -m tests.page.javascript types
	@$(python) -m tests.page.javascript lint
	@$(python) -m pytest -q tests/unit/structure -m "not slow" $(ARGS)

sizes: $(installed) ## count modules, lines, classes and cycles beside what is aimed at; AGAINST=COMMIT: and beside that commit's
	@$(python) -m tests.sizes $(AGAINST)

format: $(installed) ## put the code into the house format
	@$(python) -m ruff format .
	@$(python) -m ruff check --fix .

bench: $(installed) ## measure the store beside plain redis-py; AGAINST=COMMIT: beside itself at that commit
	@$(python) -m $(if $(AGAINST),benchmarks.against $(AGAINST),benchmarks) $(ARGS)

bench-peers: $(installed) ## measure the controllers beside other queues, each in an environment of its own; AGAINST likewise
	@$(python) -m $(if $(AGAINST),benchmarks.against $(AGAINST) --kind peers,benchmarks.peers) $(ARGS)

bench-live: $(installed) ## measure how live jobs are followed beside a blocking XREAD and other SSE servers; AGAINST likewise
	@$(if $(AGAINST),true,$(python) -m pip install --quiet --disable-pip-version-check -e '.[all,bench]')
	@$(python) -m $(if $(AGAINST),benchmarks.against $(AGAINST) --kind live,benchmarks.live --plots docs) $(ARGS)

bench-cluster: $(installed) ## measure what appending, running and following jobs costs on one node and on three
	@$(python) -m pip install --quiet --disable-pip-version-check -e '.[all,bench]'
	@$(python) -m benchmarks.cluster $(ARGS)

bench-history: $(installed) ## seal, verify and copy ten million lines, read a million archived ones, weigh small jobs
	@$(python) -m benchmarks.history
	@$(python) -m benchmarks.archived
	@$(python) -m benchmarks.sealed

bench-page: $(installed) ## look at logs of a million and of ten million lines, and at live ones, in Chromium
	@$(python) -m benchmarks.page $(ARGS)

docs: $(installed) ## write the documents that are made from the code
	@$(python) -m tests.documents
	@$(python) -m tests.walks

pictures: $(installed) ## take the pictures of the page in docs/pictures anew, in Chromium
	@CI_EVENTSTORE_PICTURES=docs/pictures $(python) -m pytest -q tests/page/test_pictures.py $(ARGS)

clean: ## remove everything that can be made again, .venv too
	@rm -rf $(venv) node_modules build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
