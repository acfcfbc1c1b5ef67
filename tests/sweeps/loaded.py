"""Loads all that a run needs from other projects, for the process that `runs.Starter` copies.

This project's own packages are forgotten again: a copy imports them from where its command is to run.
"""

import gc
import importlib
import os
import sys

from base.project_code import PACKAGES

_MODULES = (
    "pipeline.local.runner",
    "pipeline.local.dag_runner",
    "pipeline.dag.pipeline",
    "pipeline.records.outputs",
    "pipeline.pages.run_page",
    "components.model_check.process",
    "components.image_example_gen.executor",
    "components.transform.executor",
    "components.evaluator.executor",
    "models.training",
    "tensorflow_data_validation",
)

ENVIRONMENT = dict(os.environ)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
for _name in _MODULES:
    importlib.import_module(_name)
for _name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
    del sys.modules[_name]
gc.collect()
gc.freeze()  # so that a copy's collections neither look at these objects nor write to their memory
