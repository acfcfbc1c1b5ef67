.PHONY: run test test-extra lint bench bench-full sbom lock setup mlflow clean

run: setup  ## the whole pipeline on the embedded digits
	.venv/bin/fpn run --config configs/digits.yaml

test: setup  ## all tests but the extra ones, on all cores
	.venv/bin/pytest -n logical --maxprocesses 4 --durations 20

test-extra: setup  ## what takes minutes more: the compiled pipeline task by task, a benchmark
	.venv/bin/pytest -m extra -n 2 --durations 20

lint: setup  ## format, lint, types, and which package imports which
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy base models storage images evaluation components pipeline
	.venv/bin/lint-imports

setup:  ## what run and test need; nothing where it is there already
	@scripts/bootstrap.sh

mlflow: setup  ## MLflow for push.registry, in an environment of its own
	.venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python .venv-mlflow
	.venv/bin/uv pip install --quiet --python .venv-mlflow/bin/python --require-hashes -r mlflow.lock

bench: setup  ## what the pipeline costs beside plain scripts, quick: minutes; writes docs/performance.md
	.venv/bin/python -m benchmarks

bench-full: setup  ## the same at full size: hours
	.venv/bin/python -m benchmarks --full

sbom: setup  ## what is in the environment, as CycloneDX; docs/trust.md has the same for an image
	.venv/bin/python -m scripts.sbom output/sbom.json

lock: setup  ## requirements.lock and mlflow.lock anew from pyproject.toml
	.venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group bootstrap \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade --quiet --output-file requirements.lock
	.venv/bin/uv pip compile --group mlflow --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade --quiet --output-file mlflow.lock

clean:  ## what runs have written; not the environment
	rm -rf output data
