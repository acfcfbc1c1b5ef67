"""Writes a CycloneDX SBOM: packages with versions, licences and dependencies, and their hashes in requirements.lock.

    python -m scripts.sbom environment.json                          of this environment
    python -m scripts.sbom image.json --packages packages.txt        of an image: what `pip list --format=freeze` says in it

cyclonedx-py (CycloneDX's own tool) reads the environment, and its library validates the result. The same packages give the same
file: it has no time and no random number.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from base.local_files import write_text
from scripts.list_licences import licence

ROOT: Final = Path(__file__).parents[1]
_REQUIREMENT: Final = re.compile(r"^([\w.-]+)==([^\s;]+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def sbom(packages: str | None = None) -> dict[str, Any]:
    """The SBOM as JSON.

    Args:
      packages: a line `name==version` for each package that is in it; None for all of this environment.
    """
    command = [
        Path(sys.executable).with_name("cyclonedx-py"),
        "environment",
        sys.executable,
        "--pyproject",
        ROOT / "pyproject.toml",
    ]
    done = subprocess.run([*command, "--output-reproducible", "--no-validate"], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if packages is not None:
        _restrict(found, packages)
    locked = {
        _key(name, version): re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)
        for name, version, rest in _REQUIREMENT.findall((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    }
    for component in found["components"]:
        name = component["name"]
        component.setdefault("licenses", [{"license": {"name": licence(name)}}])
        if hashes := locked.get(_key(name, component["version"])):
            content = [{"alg": "SHA-256", "content": value} for value in hashes]
            place = {"type": "distribution", "url": component["purl"], "hashes": content}
            component.setdefault("externalReferences", []).append(place)
    return found


def _restrict(found: dict[str, Any], packages: str) -> None:
    """Leaves only some packages in an SBOM, and adds those that this environment does not have."""
    known = {_key(item["name"], item["version"]): item for item in found["components"]}
    found["components"] = [
        known.get(
            _key(name, version),
            {
                "bom-ref": f"{name}=={version}",
                "name": name,
                "purl": f"pkg:pypi/{canonicalize_name(name)}@{version}",
                "type": "library",
                "version": version,
            },
        )
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", packages, re.MULTILINE)
        if name != found["metadata"]["component"]["name"]
    ]
    kept = {item["bom-ref"] for item in (*found["components"], found["metadata"]["component"])}
    found["dependencies"] = [
        {**item, "dependsOn": [ref for ref in item.get("dependsOn", []) if ref in kept]}
        for item in found["dependencies"]
        if item["ref"] in kept
    ]


def _key(name: str, version: str) -> str:
    return f"{canonicalize_name(name)}=={version}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a CycloneDX SBOM of this environment, or of an image.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--packages", type=Path, help="what pip list --format=freeze says in an image")
    options = parser.parse_args()
    text = json.dumps(sbom(options.packages and options.packages.read_text()), indent=2) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"{options.output}: not written, for it does not fit the schema: {error}")
    write_text(options.output, text)


if __name__ == "__main__":
    main()
