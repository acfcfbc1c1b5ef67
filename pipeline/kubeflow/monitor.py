"""The pipeline that monitors a pushed model: one task, which runs `fpn monitor`, and can start the training pipeline."""

from typing import Any, Final

from base.errors import UserError

MONITOR: Final = "Monitor"
# $0 is the compiled training pipeline, or empty; the others are arguments of `fpn monitor`, whose exit status 3 means that a
# check has failed. The task then fails, too.
_SCRIPT: Final = """\
python -m pipeline.cli monitor "$@"
status=$?
if [ $status -eq 3 ] && [ -n "$0" ]; then python -m pipeline.cli deploy --pipeline "$0" --in-cluster; fi
exit $status
"""
_OPTIONS: Final = ("model", "captured", "since", "reference", "labels", "output")


def build_spec(name: str, root: str, model: str, captured: str) -> dict[str, Any]:
    """The pipeline's specification in JSON, without what its pod gets.

    Its runtime parameters are the options of `fpn monitor`, empty if not given, and `train`: a compiled pipeline on a volume,
    which a failed check starts.

    Args:
      name: of the pipeline.
      root: URI below which Kubeflow Pipelines keeps logs.
      model: default of `model`.
      captured: default of `captured` and `output`.

    Raises:
      UserError: the model or the requests are not on a volume.
    """
    for path in (model, captured):
        if "://" in path:
            raise UserError(
                f"{path}: fpn monitor reads from one of kubeflow.volumes; set kubeflow.state, and push.path, to one"
            )
    defaults = dict.fromkeys((*_OPTIONS, "train"), "") | {
        "model": model,
        "captured": captured,
        "output": captured,
        "since": "7d",
    }
    values = [text for option in _OPTIONS for text in (f"--{option}", f"{{{{$.inputs.parameters['{option}']}}}}")]
    return {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx",
        "defaultPipelineRoot": root,
        "root": {
            "inputDefinitions": {
                "parameters": {key: {"parameterType": "STRING", "defaultValue": value} for key, value in defaults.items()}
            },
            "dag": {
                "tasks": {
                    MONITOR: {
                        "taskInfo": {"name": MONITOR},
                        "componentRef": {"name": MONITOR},
                        "cachingOptions": {},  # no cache: nothing notices new requests
                        "inputs": {"parameters": {key: {"componentInputParameter": key} for key in defaults}},
                    }
                }
            },
        },
        "components": {
            MONITOR: {
                "executorLabel": f"{MONITOR}_executor",
                "inputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in defaults}},
            }
        },
        "deploymentSpec": {
            "executors": {
                f"{MONITOR}_executor": {
                    "container": {"command": ["sh"], "args": ["-c", _SCRIPT, "{{$.inputs.parameters['train']}}", *values]}
                }
            }
        },
    }
