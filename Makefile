# A Python from 3.10 on, a C compiler and make are all it takes. What is made stays under .venv/, build/ and dist/.

PYTHON ?= python3
# the Pythons to test with, such as "3.11 3.13"; all that are installed if empty
PYTHONS ?=

.PHONY: help demo test typecheck lint bench build clean

help:
	@echo 'make demo                    install the package into .venv/demo and run examples/demo.py'
	@echo 'make test [PYTHONS="3.12"]   run the whole suite on every supported Python that is installed'
	@echo 'make typecheck (or lint)     run only mypy, stubtest and pyright'
	@echo 'make bench                   compare with other pools'
	@echo 'make build                   build the sdist and a wheel into dist/'
	@echo 'make clean                   remove everything that was made'

# The example runs from within its environment, so that it imports the installed package and not the checkout.
demo:
	$(PYTHON) -m venv .venv/demo
	rm -rf build
	.venv/demo/bin/python -m pip install --quiet --disable-pip-version-check '.[demo]'
	cd .venv/demo && bin/python ../../examples/demo.py

test:
	$(PYTHON) tests/run_all.py $(PYTHONS)

typecheck lint:
	$(PYTHON) tests/run_all.py --only typing $(PYTHONS)

bench:
	$(PYTHON) -m venv .venv/bench
	rm -rf build
	.venv/bench/bin/python -m pip install --quiet --disable-pip-version-check '.[bench]'
	cd .venv/bench && bin/python ../../benchmarks/run.py

build:
	$(PYTHON) -m venv .venv/build
	.venv/build/bin/python -m pip install --quiet --disable-pip-version-check build
	.venv/build/bin/python -m build

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .hypothesis
	rm -f _cpool/*.so _cpool/*.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
