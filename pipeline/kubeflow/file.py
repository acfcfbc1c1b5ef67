"""Reads a compiled pipeline: the YAML file that Kubeflow Pipelines runs."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.errors import UserError
from base.inputs import MAX_RECORD_BYTES, read_text
from base.yaml_text import parse_documents, parse_yaml
from pipeline.config.pods import escaped

_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclass(frozen=True)
class PipelineFile:
    """A compiled pipeline.

    Attributes:
      path: the file.
      name: name of the pipeline.
      version: name of this version: the pipeline's name and 12 hexadecimal digits of the file's SHA-256.
      types: type of each runtime parameter, such as NUMBER_INTEGER.
      defaults: defaults of the runtime parameters that have one. In texts each `$` is doubled, because Kubernetes halves it.
      required: names of the parameters that a run must be given.
      pipeline_root: URI below which everything is written; empty if the server's own is used.
      tasks: names of the tasks.
    """

    path: Path
    name: str
    version: str
    types: dict[str, str]
    defaults: dict[str, Any]
    required: list[str]
    pipeline_root: str
    tasks: list[str]

    def values(self, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """Values of all runtime parameters in the form that a run needs (with `$` doubled in texts).

        Args:
          overrides: texts "name=value" with the value in YAML; later ones win.

        Raises:
          UserError: there is no such parameter, a value does not fit, or a parameter has no value.
        """
        values = dict(self.defaults)
        for override in overrides:
            name, equals, text = override.partition("=")
            if not equals or name not in self.types:
                known = ", ".join(sorted(self.types)) or "none"
                raise UserError(f"--parameter {override}: write it as NAME=VALUE; {self.path} has the parameters: {known}")
            values[name] = self._parse(name, text)
        for name in self.required:
            if name not in values:
                raise UserError(f"{self.path}: {name} has no default; give --parameter {name}=VALUE")
        return values

    def _parse(self, name: str, text: str) -> Any:
        kind = self.types[name]
        if kind == "STRING":
            return escaped(text)
        try:
            value = parse_yaml(text, name)
            if kind.startswith("NUMBER") and isinstance(value, str):
                value = float(value)  # YAML 1.1 reads 1e-3 as text
        except (UserError, ValueError) as error:
            raise UserError(f"--parameter {name}={text}: must be of type {kind}") from error
        if not isinstance(value, _TYPES.get(kind, (object,))) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise UserError(f"--parameter {name}={text}: must be of type {kind}")
        return value


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Reads the YAML documents of a file.

    Raises:
      UserError: the file can't be read, is not YAML, or has a document that is not a mapping.
    """
    text = read_text(path, MAX_RECORD_BYTES, "compile it with fpn compile")
    documents = [item for item in parse_documents(text, str(path)) if item is not None]
    if not documents or not all(isinstance(item, dict) for item in documents):
        raise UserError(f"{path}: not a compiled pipeline; make one with fpn compile")
    return documents


def read_pipeline_file(path: Path) -> PipelineFile:
    """Reads what is needed to run a compiled pipeline.

    Raises:
      UserError: the file is not a compiled pipeline.
    """
    spec = next((item for item in read_documents(path) if "pipelineInfo" in item), {})
    try:
        name = spec["pipelineInfo"]["name"]
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        tasks = spec["root"]["dag"]["tasks"]
        return PipelineFile(
            path=path,
            name=name,
            version=f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}",
            types={key: item["parameterType"] for key, item in parameters.items()},
            defaults={key: _default(item) for key, item in parameters.items() if "defaultValue" in item},
            required=[key for key, item in parameters.items() if "defaultValue" not in item and not item.get("isOptional")],
            pipeline_root=spec.get("defaultPipelineRoot") or "",
            tasks=[item.get("taskInfo", {}).get("name", key) for key, item in tasks.items()],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a compiled pipeline; make one with fpn compile") from error


def _default(parameter: dict[str, Any]) -> Any:
    """A parameter's default, converted to the parameter's type: protocol buffers make all numbers floats."""
    value = parameter["defaultValue"]
    whole = parameter["parameterType"] == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer()
    return int(value) if whole else json.loads(json.dumps(value))
