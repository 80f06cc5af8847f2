# The few things people do here. Inside a virtual environment; `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help install test quick soak scale browser screenshots lint format types check reference examples docs docs-serve clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## install the checkout itself (editable) with all that the tests need
	python -m pip install --editable ".[dev]"

test:  ## run all tests
	pytest

quick:  ## run the tests that need no trained model
	pytest -m "not real and not browser and not soak and not scale"

soak:  ## twenty thousand requests with kills (SOAK_SCALE=0.1 for a tenth)
	pytest -m soak tests/soak

scale:  ## very large inputs and models
	pytest -n 0 -m scale

browser:  ## page and documentation in a real headless Chromium
	pytest -m browser tests/browser tests/docs

screenshots:  ## take the pictures of the page anew
	python docs/screenshots.py

lint:  ## check style and formatting
	ruff check .
	ruff format --check .

format:  ## mend style and formatting
	ruff check --fix .
	ruff format .

types:  ## check types
	mypy

reference:  ## write the parts of the documentation that follow from code and data
	python docs/generate.py

examples:  ## make what the documentation shows of the default model anew
	python docs/generate.py --examples

docs: reference  ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

docs-serve: reference  ## show the documentation on this machine while you write
	NO_MKDOCS_2_WARNING=1 python -m mkdocs serve

check: lint types test  ## lint, types and tests

clean:  ## remove what builds and tools leave behind; corpora and training runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
