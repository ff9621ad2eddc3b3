# The two commands that everyone needs are `make demo` and `make test`; both set everything up.
.DEFAULT_GOAL := help
BIN := .venv/bin
# Without groups this deals tests one by one; the default deals hundreds at a time.
ONE_BY_ONE := loadgroup

.PHONY: help
help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: demo
demo: ## the whole line on this machine, before your eyes
	@deploy/setup.sh
	@$(BIN)/hololine demo $(if $(CI),--exit)

.PHONY: test
test: ## every test: unit, contract, integration on the embedded stack, browser
	@deploy/setup.sh browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist $(ONE_BY_ONE)

.PHONY: check
check: ## format, lint, types, imports, house rules
	@deploy/setup.sh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py

.PHONY: fmt
fmt: ## format, and mend what lint can mend
	@deploy/setup.sh
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: schemas
schemas: ## write connectors/schemas/ anew from the messages
	@deploy/setup.sh
	$(BIN)/python -m connectors.schemas.generate

.PHONY: clean
clean: ## remove the environment, the demo's data and every cache
	rm -rf .venv .uv var dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
