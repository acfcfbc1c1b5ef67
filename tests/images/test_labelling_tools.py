"""Files of Vertex AI, COCO, Label Studio, CVAT and Datumaro, in the layouts that these tools write."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import settings, touch, user_error
from mutations import mutate

from base.errors import UserError
from images.dataset import source
from pipeline.pushed.labelling_tools import Suggestion, label_studio_tasks

NAMES = [f"{label}_{number:02d}.jpg" for label in ("cat", "dog") for number in range(20)]
SPLITS = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
CLASSES = {("", "cat"): 20, ("", "dog"): 20}
IN_SPLITS = {(split, label): n for split, n in (("train", 12), ("eval", 4), ("test", 4)) for label in ("cat", "dog")}
USES = dict(zip(NAMES, SPLITS * 2, strict=True))


def find(folder: Path, **changes: Any) -> source.Found:
    return source.find_rows(str(folder), settings(**changes))


def counts(found: source.Found) -> Counter[tuple[str, str]]:
    assert not any(row.reason for row in found.rows)
    assert all(row.path.rpartition("/")[2].split("_")[0] == row.label for row in found.rows)
    return Counter((row.split, row.label) for row in found.rows)


def label_of(name: str) -> str:
    return name.split("_")[0]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


# Vertex AI


@pytest.mark.parametrize("with_use", [True, False])
def test_vertex_csv_has_no_header(with_use: bool, tmp_path: Path) -> None:
    touch(tmp_path, *(f"flowers/{name}" for name in NAMES))
    rows = [[*([USES[name]] if with_use else []), f"gs://my-bucket/flowers/{name}", label_of(name)] for name in NAMES]
    with open(tmp_path / "import.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = find(tmp_path)
    assert counts(found) == (IN_SPLITS if with_use else CLASSES)
    assert found.notes == [
        "Data: read from import.csv, a Vertex AI file",
        "Data: 40 files that import.csv names without folder or suffix are found by their names",
    ]


def test_vertex_csv_with_unassigned_rows_and_several_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write(tmp_path / "import.csv", "TEST,gs://b/a.jpg,cat,dog\nUNASSIGNED,gs://b/b.jpg,dog,\nunassigned,gs://b/c.jpg\n")
    found = find(tmp_path, multi_label=True)
    assert {row.path: (row.split, row.labels) for row in found.rows} == {
        "a.jpg": ("test", ("cat", "dog")),
        "b.jpg": ("", ("dog",)),
        "c.jpg": ("", ()),
    }
    assert "a.jpg has 2 classes, cat and dog; set data.multi_label to true" in user_error(tmp_path)


def vertex_line(name: str) -> str:
    return json.dumps(
        {
            "imageGcsUri": f"gs://my-bucket/{name}",
            "classificationAnnotation": {
                "displayName": label_of(name),
                "annotationResourceLabels": {"aiplatform.googleapis.com/annotation_set_name": "8066716590760001536"},
            },
            "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": USES[name].replace("train", "training")},
        }
    )


@pytest.mark.parametrize("name", ["data.jsonl", "training-00000-of-00001.jsonl", "manifest.jsonl"])
def test_vertex_json_lines(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    write(tmp_path / name, "".join(f"{vertex_line(name)}\n" for name in NAMES))
    assert counts(find(tmp_path)) == IN_SPLITS


def test_vertex_json_lines_with_several_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    line = {"imageGcsUri": "gs://b/a.jpg", "classificationAnnotations": [{"displayName": "dog"}, {"displayName": "cat"}]}
    write(tmp_path / "data.jsonl", json.dumps(line))
    assert [row.labels for row in find(tmp_path, multi_label=True).rows] == [("cat", "dog")]


def test_remote_images_of_a_vertex_file_stay_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "import.csv", "gs://b/x/cat_1.jpg,cat\ngs://b/x/dog_1.jpg,dog\n")
    asked = []
    monkeypatch.setattr("images.dataset.listing._list_remote", lambda place, _: asked.append(place) or {})
    assert "gs://b/x/cat_1.jpg" in user_error(tmp_path)
    assert asked == ["gs://b/x"]


# COCO


def coco(names: list[str], **more: Any) -> dict[str, Any]:
    """As Datumaro writes it, with one box per image."""
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": id, "name": name, "supercategory": ""} for id, name in ((1, "cat"), (7, "dog"))],
        "images": [
            {"id": 10 + n, "width": 10, "height": 5, "file_name": name, "license": 0, "flickr_url": "", "date_captured": 0}
            for n, name in enumerate(names)
        ],
        "annotations": [
            {"id": n, "image_id": 10 + n, "category_id": {"cat": 1, "dog": 7}[label_of(name)], "segmentation": [[2.0, 2.0]]}
            | {"area": 3.0, "bbox": [2.0, 2.0, 3.0, 1.0], "iscrowd": 0}
            for n, name in enumerate(names)
        ],
        **more,
    }


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_{}2017.json", "{}2017/"),
        ("annotations/instances_{}.json", "images/{}/"),
        ("{}/_annotations.coco.json", "{}/"),
    ],
)
def test_coco_files_for_each_split(annotations: str, images: str, tmp_path: Path) -> None:
    words = {"train": "train", "validation": "val", "test": "test"}
    for use, word in words.items():
        names = [name for name in NAMES if USES[name] == use]
        touch(tmp_path, *(f"{images.format(word)}{name}" for name in names))
        write(tmp_path / annotations.format(word), coco(names))
        if "instances" in annotations:
            write(tmp_path / f"annotations/captions_{word}.json", coco(names, annotations=[{"image_id": 10, "caption": "a"}]))
    assert counts(find(tmp_path)) == IN_SPLITS


def test_one_coco_file_gives_no_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{name}" for name in NAMES))
    write(tmp_path / "annotations/instances_train.json", coco(NAMES))
    assert counts(find(tmp_path)) == CLASSES
    assert counts(find(tmp_path, manifest="annotations/instances_train.json")) == CLASSES


def test_coco_images_of_several_categories(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{name}" for name in NAMES))
    content = coco(NAMES)
    content["annotations"] = [*content["annotations"][1:], {"id": 99, "image_id": 11, "category_id": 7}]
    write(tmp_path / "result.json", content)
    assert "cat_01.jpg has 2 classes, cat and dog; set data.multi_label to true" in user_error(tmp_path)
    found = {row.path: row.labels for row in find(tmp_path, multi_label=True).rows}
    assert found["images/cat_00.jpg"] == ()
    assert found["images/cat_01.jpg"] == ("cat", "dog")


def test_two_coco_files_without_splits_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    write(tmp_path / "a.json", coco(NAMES[:20]))
    write(tmp_path / "b.json", coco(NAMES[20:]))
    assert "a.json and b.json may both be the manifest; set data.manifest to one" in user_error(tmp_path)


@pytest.mark.parametrize("damage", ['"categories"', '"file_name"', "category_id"])
def test_a_damaged_coco_file_is_told(damage: str, tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    write(tmp_path / "result.json", json.dumps(coco(NAMES)).replace(damage, damage.replace("a", "x")))
    text = user_error(tmp_path)
    assert "result.json: can't be read as a COCO file" in text
    assert "set data.layout to class" in text


# Label Studio


def task(number: int, image: str, *choices: str, **more: Any) -> dict[str, Any]:
    """A task as Label Studio 1.x exports it."""
    result = [
        {"id": "x1", "type": "choices", "value": {"choices": list(choices)}, "from_name": "choice", "to_name": "image"},
    ]
    return {
        "id": number,
        "annotations": [
            {"id": number, "completed_by": 1, "result": result, "was_cancelled": False, "ground_truth": False, "lead_time": 3.2}
            | more
        ],
        "file_upload": image.rpartition("/")[2],
        "data": {"image": image},
        "meta": {},
        "created_at": "2021-05-12T18:43:41.241095Z",
    }


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("/data/upload/1/ab12cd34-{}", "media/upload/1/ab12cd34-{}"),
        ("/data/upload/1/ab12cd34-{}", "{}"),
        ("/data/local-files/?d=pets/raw/{}", "pets/raw/{}"),
        ("/data/local-files/?d=pets%2Fraw/{}", "raw/{}"),
        ("https://example.org/images/{}", "images/{}"),
        ("s3://bucket/images/{}", "{}"),
    ],
)
@pytest.mark.parametrize("form", ["json", "json-min", "csv"])
def test_label_studio(form: str, written: str, place: str, tmp_path: Path) -> None:
    touch(tmp_path, *(place.format(name) for name in NAMES))
    flat = [
        {"image": written.format(name), "id": number, "choice": label_of(name), "annotator": 1, "annotation_id": number}
        | {"created_at": "2021-05-12T18:43:41Z", "updated_at": "2021-05-12T18:43:41Z", "lead_time": 3.2}
        for number, name in enumerate(NAMES, 1)
    ]
    if form == "csv":
        with open(tmp_path / "project-1-at-2021-05-12.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, sorted(flat[0]), quoting=csv.QUOTE_NONNUMERIC)
            writer.writeheader()
            writer.writerows(flat)
    else:
        tasks = [task(number, written.format(name), label_of(name)) for number, name in enumerate(NAMES, 1)]
        write(tmp_path / "project-1-at-2021-05-12.json", flat if form == "json-min" else tasks)
    found = find(tmp_path)
    assert found.unlisted == 0
    assert Counter((row.split, row.label) for row in found.rows) == CLASSES
    assert all(row.label in row.path for row in found.rows)


def test_label_studio_with_spaces_around_names_and_choices(tmp_path: Path) -> None:
    names = [" cat_00.jpg", "cat_01.jpg", " dog_00.jpg ", "dog_01.jpg"]
    touch(tmp_path, *names)
    tasks = json.loads(label_studio_tasks([Suggestion(name, [], 0.5, 8, 8) for name in names], ".", "a model"))
    for task, name in zip(tasks, names, strict=True):
        choice = {"type": "choices", "value": {"choices": [f" {label_of(name.strip())}"]}}
        task["annotations"] = [{"result": [choice]}]
    write(tmp_path / "export.json", tasks)
    found = find(tmp_path)
    assert {row.path: row.label for row in found.rows} == {name: label_of(name.strip()) for name in names}


def test_label_studio_with_several_choices(tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    tasks = [task(n, f"/data/upload/1/{name}", "indoor", label_of(name)) for n, name in enumerate(NAMES)]
    write(tmp_path / "export.json", tasks)
    assert "2 classes" in user_error(tmp_path)
    assert find(tmp_path, multi_label=True).reading.classes == ("cat", "dog", "indoor")
    lines = [f'/data/upload/1/{name},"{{""choices"": [""indoor"", ""{label_of(name)}""]}}",1,1,2' for name in NAMES]
    write(tmp_path / "export.csv", "\n".join(["image,choice,annotation_id,annotator,lead_time", *lines]))
    found = find(tmp_path, multi_label=True, manifest="export.csv")
    assert found.reading.classes == ("cat", "dog", "indoor")


def test_skipped_answers_do_not_count_and_the_ground_truth_wins(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    first, skipped = task(1, "/data/upload/1/a.jpg", "cat"), task(1, "", "dog", was_cancelled=True)
    second, truth = task(2, "/data/upload/1/b.jpg", "cat"), task(2, "", "dog", ground_truth=True)
    first["annotations"] += skipped["annotations"]
    second["annotations"] += truth["annotations"]
    write(tmp_path / "export.json", [first, second])
    assert {row.path: row.labels for row in find(tmp_path).rows} == {"a.jpg": ("cat",), "b.jpg": ("dog",)}


def test_of_two_columns_of_answers_one_must_be_named(tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    lines = [f"/data/upload/1/{name},good,{label_of(name)},1,1,2" for name in NAMES]
    write(tmp_path / "export.csv", "\n".join(["image,quality,animal,annotation_id,annotator,lead_time", *lines]))
    assert "quality or animal may be the class; set data.columns.label to one" in user_error(tmp_path)
    assert counts(find(tmp_path, columns={"label": "animal"})) == CLASSES


# CVAT and Datumaro


def cvat(images: list[str]) -> str:
    meta = "<meta><project><id>3</id><name>test</name><labels><label><name>cat</name></label></labels></project></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{"".join(images)}</annotations>'


@pytest.mark.parametrize("place", ["images/{use}/{name}", "images/{name}", "{name}"])
def test_cvat_for_images(place: str, tmp_path: Path) -> None:
    touch(tmp_path, *(place.format(use=USES[name].title(), name=name) for name in NAMES))
    tag = '<tag label="{}" source="manual"><attribute name="a">cow</attribute></tag>'
    images = [
        f'<image id="{n}" name="{name}" subset="{USES[name].title()}" task_id="39" width="8" height="8">'
        f"{tag.format(label_of(name))}</image>"
        for n, name in enumerate(NAMES)
    ]
    write(tmp_path / "annotations.xml", cvat(images))
    assert counts(find(tmp_path)) == IN_SPLITS


def test_boxes_without_tags_or_choices_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{tool}/{name}" for tool in ("cvat", "studio") for name in NAMES))
    box = '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="9" occluded="0"></box>'
    images = [f'<image id="{n}" name="{name}" width="8" height="8">{box}</image>' for n, name in enumerate(NAMES)]
    write(tmp_path / "cvat/annotations.xml", cvat(images))
    text = user_error(tmp_path / "cvat")
    assert "annotations.xml: no image has a class; in a CVAT file the tags of images are the classes, and boxes" in text
    assert len(find(tmp_path / "cvat", labelled=False).rows) == 40
    tasks = [task(number, name, label_of(name)) for number, name in enumerate(NAMES, 1)]
    for item in tasks:
        item["annotations"][0]["result"][0]["value"] = {"x": 1, "y": 1, "rectanglelabels": ["Cat"]}
    write(tmp_path / "studio/project.json", tasks)
    assert "in a Label Studio file the choices of images are the classes" in user_error(tmp_path / "studio")


def test_the_same_name_in_two_subsets_of_cvat_means_two_images(tmp_path: Path) -> None:
    touch(tmp_path, "images/Train/0.jpg", "images/Test/0.jpg")
    tags = {"Train": "cat", "Test": "dog"}
    images = [f'<image id="0" name="0.jpg" subset="{use}"><tag label="{tags[use]}"/></image>' for use in tags]
    write(tmp_path / "annotations.xml", cvat(images))
    assert {(row.path, row.split, row.label) for row in find(tmp_path).rows} == {
        ("images/Train/0.jpg", "train", "cat"),
        ("images/Test/0.jpg", "test", "dog"),
    }


def test_xml_that_declares_entities_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]>\n'
    write(tmp_path / "annotations.xml", bomb + '<annotations><image name="&y;"/></annotations>')
    assert "it declares a document type" in user_error(tmp_path)


def datumaro(names: list[str], with_image: bool) -> dict[str, Any]:
    return {
        "info": {},
        "categories": {"label": {"labels": [{"name": name, "parent": "", "attributes": []} for name in ("cat", "dog")]}},
        "items": [
            {
                "id": name.removesuffix(".jpg"),
                "annotations": [
                    {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": ["cat", "dog"].index(label_of(name))},
                    {"id": 1, "type": "bbox", "attributes": {}, "group": 0, "label_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0]},
                ],
            }
            | ({"image": {"path": name, "size": [8, 8]}} if with_image else {})
            for name in names
        ],
    }


@pytest.mark.parametrize("with_image", [True, False])
def test_datumaro(with_image: bool, tmp_path: Path) -> None:
    for use in ("train", "validation", "test"):
        names = [name for name in NAMES if USES[name] == use]
        touch(tmp_path, *(f"images/{use}/{name}" for name in names))
        write(tmp_path / f"annotations/{use}.json", datumaro(names, with_image))
    assert counts(find(tmp_path)) == IN_SPLITS


def test_cvats_imagenet_format_is_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label_of(name)}/{name}" for name in NAMES), "synsets.txt")
    assert Counter(row.label for row in find(tmp_path).rows if not row.reason) == {"cat": 20, "dog": 20}


# What is none of these


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"images": 3, "model": {"file_name": "x"}}'),
        ("list.json", '[{"data": 1}]'),
        ("notes.xml", "<annotation><filename>x.jpg</filename></annotation>"),
        ("numbers.csv", "1,2,3\n4,5,6\n"),
        ("other.jsonl", '{"a": 1}\n'),
        ("coco.json", json.dumps(coco(["elsewhere.jpg"] * 0))),
    ],
)
def test_other_files_beside_class_folders_change_nothing(name: str, content: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label_of(image)}/{image}" for image in NAMES))
    write(tmp_path / name, content)
    assert Counter(row.label for row in find(tmp_path).rows if not row.reason) == {"cat": 20, "dog": 20}


def test_a_file_for_each_image_is_not_looked_into(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label_of(image)}/{image}" for image in NAMES))
    for number in range(60):
        write(tmp_path / f"boxes/{number}.json", coco(NAMES))
    assert Counter(row.label for row in find(tmp_path, layout="auto").rows if row.label in ("cat", "dog")) == {
        "cat": 20,
        "dog": 20,
    }


def test_a_manifest_of_an_unknown_kind_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    write(tmp_path / "x.json", "{}")
    assert "x.json: no export of COCO" in user_error(tmp_path, manifest="x.json")


def test_one_name_in_two_folders_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a/cat_00.jpg", "b/cat_00.jpg")
    write(tmp_path / "result.json", coco(["cat_00.jpg"]))
    assert "cat_00.jpg may be a/cat_00.jpg or b/cat_00.jpg" in user_error(tmp_path)


# Damage

SEEDS = {
    "import.csv": f"training,gs://b/{NAMES[0]},cat\ntest,gs://b/{NAMES[-1]},dog\n",
    "data.jsonl": f"{vertex_line(NAMES[0])}\n{vertex_line(NAMES[-1])}\n",
    "coco.json": json.dumps(coco([NAMES[0], NAMES[-1]])),
    "datumaro.json": json.dumps(datumaro([NAMES[0], NAMES[-1]], with_image=True)),
    "tasks.json": json.dumps(
        [task(1, f"/data/upload/1/{NAMES[0]}", "cat"), task(2, f"/data/local-files/?d={NAMES[-1]}", "dog")]
    ),
    "annotations.xml": cvat(
        [
            f'<image id="1" name="{name}" subset="Train"><tag label="{label_of(name)}"/></image>'
            for name in (NAMES[0], NAMES[-1])
        ]
    ),
    "answers.csv": f"image,choice,annotation_id,annotator,lead_time\n{NAMES[0]},cat,1,1,2\n{NAMES[-1]},dog,2,1,2\n",
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_file_ends_in_rows_or_in_a_message(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.dataset.listing._list_remote", lambda place, skipped: {})
    random = np.random.default_rng(5)
    touch(tmp_path, NAMES[0], NAMES[-1])
    seed = SEEDS[name].encode()
    (tmp_path / name).write_bytes(seed)
    assert {row.label for row in find(tmp_path, manifest=name).rows} == {"cat", "dog"}
    reading = settings(manifest=name)
    told: list[str] = []
    for _ in range(60):
        (tmp_path / name).write_bytes(mutate(random, [seed]))
        try:
            source.find_rows(str(tmp_path), reading)
        except UserError as error:
            told.append(str(error))
    assert len(told) > 15
    assert all(len(text.splitlines()) <= 2 for text in told)


@pytest.mark.parametrize(
    "content",
    [
        '{"images": [{"id": 1, "file_name": 5}], "annotations": [], "categories": []}',
        '{"images": [{"id": 1, "file_name": "\\ud800.png"}], "annotations": [], "categories": []}',
        '{"images": [{"id": [1], "file_name": "a"}], "annotations": [{"image_id": [1], "category_id": 1}], "categories": []}',
        '{"images": [], "annotations": [], "categories": [{"id": {}, "name": "supercategory"}], "file_name": 1}',
        '{"images": [{"file_name": "' + "x" * 100,
        '{"images": [{"file_name": ' + "[" * 100_000,
    ],
)
def test_what_no_tool_writes_is_told(content: str, tmp_path: Path) -> None:
    touch(tmp_path, *NAMES)
    (tmp_path / "x.json").write_text(content)
    assert "x.json" in user_error(tmp_path, manifest="x.json")
