"""`fpn run` on images in a bucket, with a push to the same bucket: S3 and Google Cloud Storage."""

from pathlib import Path

import pytest
from few_digits import write_few_digits
from object_stores import Store

PROJECT = Path(__file__).parents[2]
OVERRIDES = (
    "train.epochs=1",
    "data.splits={train: 6, eval: 2, test: 2, stratify: true}",
    "evaluate.thresholds=[{metric: accuracy, lower: 0.05}]",
)

pytestmark = pytest.mark.extra


def test_images_in_a_bucket_become_a_model_in_the_bucket(store: Store, bucket: str, tmp_path: Path, fpn) -> None:
    write_few_digits(tmp_path / "data", 90)
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    for path in files:
        store.put(bucket, f"images/{path.relative_to(tmp_path / 'data')}", path.read_bytes())
    store.put(bucket, "images/", b"")  # a marker, as consoles leave it
    root = f"{store.scheme}://{bucket}"
    settings = [item for value in (*OVERRIDES, f"push.path={root}/models") for item in ("--set", value)]
    arguments = ["--config", PROJECT / "configs/digits.yaml", "--data", f"{root}/images", *settings]

    ended = fpn("run", *arguments, "--output", tmp_path / "out", "--json")

    assert ended.status == 0, ended.stderr
    assert ended.json["examples"]["rejected"] == 0
    version = ended.json["pushed_model"].removeprefix(f"{root}/")
    assert {f"{version}/saved_model.pb", f"{version}/manifest.json"} <= set(store.list(bucket, version))

    ended = fpn("run", *arguments, "--data", f"{root}-of-nobody/images", "--output", tmp_path / "other")
    assert ended.status == 2
    assert f"\nfpn: {root}-of-nobody/images: " in f"\n{ended.stderr}"  # a client of Google's may log something after it
