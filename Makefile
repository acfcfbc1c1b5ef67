.PHONY: run test test-extra lint lock setup clean

run: setup  ## the whole pipeline on the embedded digits
	.venv/bin/fpn run --config configs/digits.yaml

test: setup  ## all tests but the extra ones
	.venv/bin/pytest

test-extra: setup  ## what takes minutes more: the compiled pipeline task by task, a benchmark
	.venv/bin/pytest -m extra

lint: setup  ## format, lint and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy pipeline components models

setup:  ## what run and test need; nothing where it is there already
	@scripts/bootstrap.sh

lock: setup  ## requirements.lock anew from pyproject.toml
	.venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group bootstrap \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade --quiet --output-file requirements.lock

clean:  ## what runs have written; not the environment
	rm -rf output data
