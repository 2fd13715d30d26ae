# A Python from 3.10 on, a C compiler and make are all it takes. What is made stays under .venv/, build/ and dist/.

PYTHON ?= python3
# the Pythons to test with, such as "3.11 3.13"; all that are installed if empty
PYTHONS ?=
# for how long each part of a soak runs, for each core
SECONDS ?= 600

.PHONY: help demo test typecheck lint soak flat sanitize coverage hazards mutation fuzz bench build clean

help:
	@echo 'make demo                    install the package into .venv/demo and run examples/demo.py'
	@echo 'make test [PYTHONS="3.12"]   run everything on every supported Python that is installed'
	@echo 'make typecheck (or lint)     run only mypy, stubtest and pyright'
	@echo 'make soak [SECONDS=600]      run the simulation and the chaos on real servers for so long, each with both cores;'
	@echo '                             then each interleaving of the exhaustive tests by itself'
	@echo 'make flat                    look for leaks: each kind of operation a million times'
	@echo 'make sanitize [PYTHON_TSAN=] run the suite with sanitizers: of threads, too, if a Python built for it is named'
	@echo 'make coverage [COVERAGE=]    measure what the suite runs: branches of the Python code, lines of the compiled core'
	@echo 'make hazards                 put each known hazard back into the code: does the suite notice?'
	@echo 'make mutation [MUTATION=]    change the pure core in some 2,000 ways: does the suite notice?'
	@echo 'make fuzz [SECONDS=600]      have random bytes operate both cores, guided by coverage (Python 3.11 to 3.13)'
	@echo 'make bench [BENCH=--quick]   measure what the library has to reach, in comparison with release 0.8.1'
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

soak:
	$(PYTHON) tests/run_all.py --only simulation --only chaos --only interleavings --seconds $(SECONDS) $(PYTHONS)

flat:
	$(PYTHON) tests/run_all.py --only flat $(PYTHONS)

# ThreadSanitizer cannot do with addresses that are random. It needs a free-threaded interpreter that was configured with
# --with-thread-sanitizer: PYTHON_TSAN is its path.
sanitize: export PYTHON_TSAN := $(PYTHON_TSAN)
sanitize:
	setarch -R $(PYTHON) tests/sanitize.py $(SANITIZE)

# What these three test are copies of the checkout, which they make, and build, themselves. COVERAGE and MUTATION are
# arguments for them.
.venv/%/installed: pyproject.toml
	$(PYTHON) -m venv .venv/$*
	rm -rf build
	GENERIC_CONNECTION_POOL_PURE=1 \
		.venv/$*/bin/python -m pip install --quiet --disable-pip-version-check '.[$*]'
	.venv/$*/bin/python -m pip uninstall --quiet --yes generic-connection-pool
	touch $@

coverage: .venv/coverage/installed
	.venv/coverage/bin/python tests/coverage/measure.py --work .venv/coverage-work $(COVERAGE)

hazards: .venv/coverage/installed
	.venv/coverage/bin/python tests/hazards/put_back.py --table docs/hazards-put-back.md

mutation: .venv/mutation/installed
	nice .venv/mutation/bin/python tests/mutation/run.py --work .venv/mutation-work $(MUTATION)

# It runs from within its environment, in which it leaves what it has found: a file crash-..., to be given to it again.
fuzz:
	$(PYTHON) -m venv .venv/fuzz
	rm -rf build
	GENERIC_CONNECTION_POOL_PURE=0 .venv/fuzz/bin/python -m pip install --quiet --disable-pip-version-check '.[fuzz]'
	cd .venv/fuzz && bin/python ../../tests/fuzz/atheris_core.py -max_total_time=$(SECONDS)

# With release 0.8.1, which needs an environment of its own, as the rival. BENCH is for run.py: see benchmarks/README.md.
bench:
	$(PYTHON) -m venv .venv/bench
	rm -rf build
	GENERIC_CONNECTION_POOL_PURE=0 .venv/bench/bin/python -m pip install --quiet --disable-pip-version-check '.[bench]'
	$(PYTHON) -m venv .venv/rival
	.venv/rival/bin/python -m pip install --quiet --disable-pip-version-check generic-connection-pool==0.8.1
	mkdir -p .venv/bench/floor
	cp benchmarks/floor.pyx .venv/bench/floor/
	CFLAGS='-O3 -g0' .venv/bench/bin/cythonize -3 -i -q .venv/bench/floor/floor.pyx >.venv/bench/floor/log 2>&1 \
		|| { cat .venv/bench/floor/log; exit 1; }
	.venv/bench/bin/python benchmarks/run.py $(BENCH)

build:
	$(PYTHON) -m venv .venv/build
	.venv/build/bin/python -m pip install --quiet --disable-pip-version-check build
	.venv/build/bin/python -m build

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .hypothesis
	rm -f _cpool/*.so _cpool/*.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
