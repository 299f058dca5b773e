# make demo   compare every model on the digits, and write demo/report.html
# make test   linters, types, import contracts, all tests
PYTHON ?= python3
BIN := .venv/bin
export MPLBACKEND := Agg

.PHONY: demo test lint check bench clean

demo: .venv/installed
	rm -rf demo
	$(BIN)/leadline compare digits --out demo/

test: lint check

lint: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pylint --disable=all --enable=duplicate-code --min-similarity-lines=8 --ignore-imports=y --ignore-signatures=y src/leadline

check: .venv/tested
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: .venv/tested
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	for script in bench/[a-z]*.py; do \
		case $$script in *common.py) ;; *) $(BIN)/python -m bench.$$(basename $$script .py) ;; esac; done

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "leadline needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/installed: .venv/created pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

clean:
	rm -rf .venv demo runs build dist
