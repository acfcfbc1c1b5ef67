"""The SBOM names what is installed, fits CycloneDX's schema, and has the hashes that are locked."""

import json
import re
import sysconfig
from importlib import metadata

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from scripts.sbom import ROOT, sbom

IMAGE = """\
absl-py=={absl}
fpn-pipeline==0.1.0
keras=={keras}
nvidia-planted-cu12==1.2.3
"""


@pytest.fixture(scope="module")
def image() -> dict:
    return sbom(IMAGE.format(absl=metadata.version("absl-py"), keras=metadata.version("keras")))


def test_this_environment_is_named_whole() -> None:
    found = sbom()
    named = {(canonicalize_name(item["name"]), item["version"]) for item in found["components"]}
    installed = {
        (canonicalize_name(item.name), item.version) for item in metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    assert installed - named <= {("fpn-pipeline", "0.1.0")}  # which it is about
    assert found["metadata"]["component"]["name"] == "fpn-pipeline"
    assert all(item["licenses"] and item["purl"].startswith("pkg:pypi/") for item in found["components"])
    assert not {"serialNumber", "timestamp"} & {*found, *found["metadata"]}  # the same packages give the same file


def test_an_image_has_its_packages_alone_with_the_hashes_that_are_locked(image: dict) -> None:
    keras, known = metadata.version("keras"), {item["name"]: item for item in image["components"]}
    assert {name: item["version"] for name, item in known.items()} == {
        "absl-py": metadata.version("absl-py"),
        "keras": keras,
        "nvidia-planted-cu12": "1.2.3",  # which is not installed here
    }
    lock = (ROOT / "requirements.lock").read_text()
    (entry,) = re.findall(rf"^keras=={keras} .*?(?=^\w)", lock, re.MULTILINE | re.DOTALL)
    (place,) = (item for item in known["keras"]["externalReferences"] if item["type"] == "distribution")
    assert {item["content"] for item in place["hashes"]} == set(re.findall(r"sha256:(\w+)", entry))
    assert {"ref": f"keras=={keras}", "dependsOn": [f"absl-py=={metadata.version('absl-py')}"]} in image["dependencies"]


def test_it_fits_the_schema_and_what_does_not_is_found_out(image: dict) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(image)) is None
    assert validator.validate_str(json.dumps({**image, "components": [{"name": "no type"}]})) is not None
