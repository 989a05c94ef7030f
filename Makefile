# A bare checkout needs python3 (3.11 or newer) and make; `make demo` and `make test` do the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Tests start many processes, each of which would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-ray setup-flower test-ray test-flower test-long demo check test lint format bench docs setup-site site results clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "fedrobust needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,femnist,learned,agreement,loggers,notebook]'
	@touch $@

demo: setup
	$(BIN)/fedrobust run experiments/demo.yaml --resume --out runs/demo

# While you work: the linters, and the tests that are not marked as slow.
check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow and not long and not cluster and not flower"

# The tests of Ray and of SLURM's jobs, on this machine alone. They kill processes and wait for what
# comes then: two at a time, those of a file one after the other, since they share a cluster.
setup-ray: .venv/.ray

.venv/.ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[ray,slurm]'
	@touch $@

test-ray: setup-ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m cluster \
		$$(grep -rl "mark\.cluster" tests --include="test_*.py")

# The tests of real federations, in an environment of their own: Flower wants other versions.
setup-flower: .venv-flower/.ready

.venv-flower/.ready: pyproject.toml constraints-flower.txt
	test -x .venv-flower/bin/python || $(PYTHON) -m venv .venv-flower
	.venv-flower/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-flower.txt --editable '.[flower]' pytest pytest-xdist
	@touch $@

test-flower: setup-flower
	OMP_NUM_THREADS=1 .venv-flower/bin/python -m pytest --numprocesses 2 --dist worksteal -m flower tests/flower

# What takes many seconds: notebooks, audits, other toolboxes, a kill at every write.
test-long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal \
		-m "long and not cluster and not flower" $$(grep -rl "mark\.long" tests --include="test_*.py")

# All other tests. One thread a worker: the workers share the cores. Each takes neighbours first, so
# that what the tests of a file share is mostly made once.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not long and not cluster and not flower"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/fedrobust bench
	$(BIN)/python benchmarks/checks.py
	$(BIN)/python benchmarks/aggregators.py

# The pages of all rules and attacks and what `fedrobust list` says, from the docstrings, the table of
# the benchmark, and the picture of the packages, from their imports.
docs: setup
	$(BIN)/python docs/components.py
	$(BIN)/python docs/architecture.py

# The site, in site/: open site/index.html. Its environment holds what constraints-site.txt names, and no
# fedrobust, since the reference is read from the source. A wrong link or anchor is an error.
setup-site: .venv-site/.ready

.venv-site/.ready: constraints-site.txt
	test -x .venv-site/bin/python || $(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints-site.txt
	@touch $@

site: setup-site
	.venv-site/bin/python docs/site_pages.py
	.venv-site/bin/zensical build --clean --strict --config-file mkdocs.yml
	.venv-site/bin/python docs/site_check.py

# The table and the pages under results/, from the records there.
results: setup
	for run in results/audits/*/ results/byzantine/*/ results/drfl/*/ results/fat/*/ results/leaderboard; do $(BIN)/fedrobust report $$run; done
	$(BIN)/python results/table.py

clean:
	rm -rf .venv .venv-flower .venv-site build site runs
