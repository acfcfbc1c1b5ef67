"""What is needed to repeat a run: its command, the versions of the packages, digests of configuration and code."""

import json
import platform
import shlex
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from base.errors import UserError
from base.inputs import read_json
from base.local_files import write_text
from base.paths import short_path
from base.project_code import project_digest
from pipeline.config.loading import config_digest, dump_config
from pipeline.config.whole import Config

CONFIG_FILE: Final = "config.yaml"
REPRODUCTION_FILE: Final = "reproduction.json"
_PACKAGES: Final = (
    "fpn-pipeline",
    "tfx",
    "tensorflow",
    "keras",
    "tensorflow-transform",
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "apache-beam",
    "ml-metadata",
    "numpy",
)


@dataclass(frozen=True)
class Reproduction:
    """How a run was made.

    Attributes:
      what: "run", "data" or "cross-validation".
      command: the command that does the same again; paths below `folder` are relative to it.
      folder: absolute path of the working folder, which the configuration's relative paths start from, too.
      versions: versions of Python and of the main packages, by name.
      digest: SHA-256 of the "configuration" with all defaults, and of the project's "code".
      commit: commit of the project's Git checkout, with "-dirty" if files have changed since; empty without a checkout.
    """

    what: str
    command: str
    folder: str
    versions: dict[str, str]
    digest: dict[str, str]
    commit: str = ""


def write_reproduction(config: Config, folder: Path, what: str, arguments: list[str]) -> Reproduction:
    """Writes the whole configuration (`CONFIG_FILE`) and how to repeat the run (`REPRODUCTION_FILE`) into a run's folder.

    Args:
      config: the whole configuration.
      folder: the run's folder.
      what: as `Reproduction.what`.
      arguments: the command's arguments besides the configuration, such as ["crossval", "--folds", "5"].
    """
    write_text(folder / CONFIG_FILE, dump_config(config))
    command, *rest = arguments
    reproduction = Reproduction(
        what=what,
        command=shlex.join(["fpn", command, "--config", short_path(folder / CONFIG_FILE), *rest]),
        folder=str(Path.cwd()),
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        digest={"configuration": config_digest(config), "code": project_digest()},
        commit=_commit(),
    )
    write_text(folder / REPRODUCTION_FILE, json.dumps(asdict(reproduction), indent=2) + "\n")
    return reproduction


def read_reproduction(folder: Path) -> Reproduction | None:
    """Reads what `write_reproduction` has written into a run's folder; None if there is nothing."""
    path = folder / REPRODUCTION_FILE
    if not path.exists():
        return None
    cure = "delete the run's folder, or put the file back"
    try:
        return Reproduction(**read_json(path, cure))
    except TypeError as error:  # other keys
        raise UserError(f"{path}: not as a run writes it; {cure}") from error


def _commit() -> str:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # without this check, Git would look in the folders above
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
