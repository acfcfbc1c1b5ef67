"""Writes images with a model's answers for labelling tools, which show them as suggestions; `images.dataset.imports` reads
what people make of them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree

_NOT_IN_XML: Final = re.compile(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
_STORAGE: Final = "/data/local-files/?d="  # Label Studio's own server of a folder


@dataclass(frozen=True)
class Suggestion:
    """A model's answer to an image.

    Attributes:
      path: of the image in the data folder.
      labels: names of the classes in the answer; of multi-label data any number.
      probability: the largest of them, 0..1.
      width: pixels.
      height: pixels.
    """

    path: str
    labels: Sequence[str]
    probability: float
    width: int
    height: int


def label_studio_tasks(suggestions: Sequence[Suggestion], folder: str, model: str) -> str:
    """Tasks with predictions, as Label Studio imports them; images are served by it from its local storage.

    Args:
      suggestions: the images and answers.
      folder: name of the data folder in that storage.
      model: what made them.
    """
    tasks = [
        {
            "data": {"image": _STORAGE + quote(f"{folder}/{item.path}")},
            "predictions": [
                {
                    "model_version": model,
                    "score": round(item.probability, 4),
                    "result": [
                        {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": list(item.labels)}}
                    ],
                }
            ],
        }
        for item in suggestions
    ]
    return json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"


def label_studio_interface(classes: Sequence[str], multi_label: bool) -> str:
    """The labelling interface of a Label Studio project for these tasks."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    choice = "multiple" if multi_label else "single"
    choices = ElementTree.SubElement(view, "Choices", name="label", toName="image", choice=choice)
    for name in classes:
        ElementTree.SubElement(choices, "Choice", value=name)
    return _as_text(view)


def cvat_annotations(suggestions: Sequence[Suggestion], classes: Sequence[str]) -> str:
    """Tags in the format "CVAT for images 1.1", to be uploaded to a task that has the same images and labels."""
    annotations = ElementTree.Element("annotations")
    ElementTree.SubElement(annotations, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(annotations, "meta"), "task")
    labels = ElementTree.SubElement(task, "labels")
    for name in classes:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "tag"
        ElementTree.SubElement(label, "attributes")
    for number, item in enumerate(item for item in suggestions if not _NOT_IN_XML.search(item.path)):
        attributes = {"id": str(number), "name": item.path, "width": str(item.width), "height": str(item.height)}
        image = ElementTree.SubElement(annotations, "image", attributes)
        for name in item.labels:
            ElementTree.SubElement(image, "tag", label=name, source="auto")
    return _as_text(annotations)


def _as_text(element: ElementTree.Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode") + "\n"
