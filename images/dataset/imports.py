"""Reads what Vertex AI and labelling tools write about images: the file of each image, its classes, its split."""

import csv
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.parsers import expat

from base.errors import UserError
from base.inputs import parse_json
from images.dataset import listing, table_files
from images.dataset.columns import guess_columns, separator_of
from images.dataset.row import SPLIT_NAMES
from images.dataset.table_files import Table, json_lines, text_lines
from images.settings import Columns

SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".json", ".xml")
BY_FILE: Final = {"a COCO file", "a Datumaro file"}  # which have a split by their names
_HEAD: Final = 2**16  # bytes at the beginning of a file, by which it is recognised
_MAX_BYTES: Final = 2**30  # of a JSON file; COCO's own largest has 450 MB
_ML_USE: Final = "aiplatform.googleapis.com/ml_use"
_USES: Final = {*SPLIT_NAMES, "unassigned", ""}  # in the first column of Vertex AI's CSV
_LABEL_STUDIO: Final = {"annotation_id", "annotator", "lead_time"}
_LABEL_STUDIO_OWN: Final = {*_LABEL_STUDIO, "id", "created_at", "updated_at", "agreement", "history"}
_IMAGE: Final = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|dcm)$", re.IGNORECASE)

_Image = tuple[str, Iterable[str], str]  # path as written, classes, split or a word for none


def open_table(folder: str, name: str, columns: Columns) -> Table:
    """Opens a table as `table_files.open_table`, or a file of one of the kinds here as a table.

    Args:
      folder: the data folder.
      name: path of the file in the folder.
      columns: names of the columns. Of Label Studio's, path and label are those of the file; otherwise they only name the
        table's columns.

    Returns:
      The table. If it is of one of the kinds here, it has one line per image, the label is a tuple of classes, and the split
      may be "".

    Raises:
      UserError: it can't be read. This may also come when lines are read.
    """
    kind = kind_of(folder, name)
    if not kind:
        if not name.lower().endswith(table_files.SUFFIXES):
            raise UserError(f"{folder}/{name}: no export of COCO, Datumaro, Label Studio or CVAT; correct data.manifest")
        return table_files.open_table(folder, name)
    path = listing.join(folder, name)

    def lines() -> Iterator[tuple[int, list[Any]]]:
        found: dict[str, tuple[set[str], str]] = {}
        try:
            with listing.open_file(path) as file:
                for written, labels, split in _READERS[kind](path, file, columns):
                    written.encode()  # half of a character is a ValueError
                    known = found.setdefault(written, (set(), SPLIT_NAMES.get(split.strip().casefold(), "")))
                    known[0].update(stripped for label in labels if (stripped := label.strip()))
        except (LookupError, TypeError, ValueError, AttributeError, OSError, csv.Error, expat.ExpatError) as error:
            raise UserError(f"{path}: can't be read as {kind} ({error!r}); export it again") from error
        for number, (written, (classes, split)) in enumerate(found.items(), 1):
            yield number, [written, tuple(sorted(classes)), split]

    return Table(path, [columns.path, columns.label, columns.split], lines(), "image", kind)


def kind_of(folder: str, name: str) -> str:
    """What a file is, such as "a COCO file", by its beginning; "" if it is of none of the kinds here."""
    suffix = posixpath.splitext(name)[1].lower()
    if suffix not in SUFFIXES:
        return ""
    try:
        with listing.open_file(listing.join(folder, name)) as file:
            head = file.read(_HEAD).decode("utf-8-sig", "replace").lstrip()
    except OSError:
        return ""  # told when it is read
    if suffix == ".xml":
        return "a CVAT file" if re.search(r"<annotations[\s>]", head) else ""
    if suffix == ".jsonl":
        return "a Vertex AI file" if '"imageGcsUri"' in head.partition("\n")[0] else ""
    if suffix == ".json":
        return _kind_of_json(head)
    line = re.split(r"[\r\n]", head, maxsplit=1)[0]
    try:
        cells = next(csv.reader([line], delimiter=separator_of(line)), [])
    except csv.Error:
        return ""  # told when it is read, if it is the manifest
    if cells and (cells[0].startswith("gs://") or (len(cells) > 1 and _is_use(cells[0]) and cells[1].startswith("gs://"))):
        return "a Vertex AI file"
    return "a Label Studio file" if _LABEL_STUDIO.issubset(cells) else ""


def _kind_of_json(head: str) -> str:
    if head.startswith("["):
        is_task = '"annotations"' in head and '"data"' in head
        return "a Label Studio file" if is_task or all(f'"{name}"' in head for name in _LABEL_STUDIO) else ""
    if re.search(r'"categories"\s*:\s*\{\s*"label"\s*:', head):
        return "a Datumaro file"
    is_coco = re.search(r'"(images|annotations|categories)"\s*:\s*\[', head) and re.search(
        r'"(file_name|image_id|supercategory)"\s*:', head
    )
    return "a COCO file" if is_coco else ""


def _is_use(cell: str) -> bool:
    return cell.strip().casefold() in _USES


def _read_vertex(name: str, file: BinaryIO, columns: Columns) -> Iterator[_Image]:
    """CSV without a header, `[ml_use,]uri,class,class...`, or JSON Lines; with boxes, the classes are those of the boxes."""
    if name.lower().endswith(".jsonl"):
        for _, found in json_lines(name, file):
            annotations = [found.get("classificationAnnotation") or {}]
            annotations += [*found.get("classificationAnnotations", ()), *found.get("boundingBoxAnnotations", ())]
            labels = [annotation.get("displayName", "") for annotation in annotations]
            yield found["imageGcsUri"], labels, found.get("dataItemResourceLabels", {}).get(_ML_USE, "")
        return
    for cells in csv.reader(text_lines(name, file, "CSV")):
        use, uri, *labels = cells if not cells or _is_use(cells[0]) else ["", *cells]
        is_box = len(labels) == 9  # class, x, y, , , x, y, ,
        yield uri.strip(), labels[:1] if is_box else labels, use


def _read_coco(name: str, file: BinaryIO, columns: Columns) -> Iterator[_Image]:
    found = parse_json(_read(name, file), name, "export it again", _slim)
    names = {category["id"]: category["name"] for category in found["categories"]}
    classes: dict[Any, set[str]] = {}
    for image, category in found["annotations"]:
        classes.setdefault(image, set()).add(names[category])
    for image, path in found["images"]:
        yield path, classes.get(image, ()), ""


def _slim(found: dict[str, Any]) -> Any:
    """What is needed of an image or an annotation, in the place of an object with outlines of many points."""
    if "image_id" in found:
        return found["image_id"], found["category_id"]
    return (found["id"], found["file_name"]) if "file_name" in found else found


def _read_datumaro(name: str, file: BinaryIO, columns: Columns) -> Iterator[_Image]:
    found = parse_json(_read(name, file), name, "export it again")
    names = [label["name"] for label in found["categories"]["label"]["labels"]]
    for item in found["items"]:
        labels = [names[annotation["label_id"]] for annotation in item["annotations"] if annotation["type"] == "label"]
        yield (item.get("image") or {}).get("path") or item["id"], labels, ""


def _read_cvat(name: str, file: BinaryIO, columns: Columns) -> Iterator[_Image]:
    """Tags of images. The images of a project's subset are in a folder of its name."""
    found: list[tuple[str, list[str], str]] = []

    def start(element: str, attributes: dict[str, str]) -> None:
        if element == "image":
            split = attributes.get("subset", "")
            found.append((posixpath.join(split, attributes["name"]), [], split))
        elif element == "tag" and found:
            found[-1][1].append(attributes["label"])

    def refuse(*_: Any) -> None:
        raise ValueError("it declares a document type")  # which could ask for much memory, or for other files

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    parser.ParseFile(file)
    yield from found


def _read_label_studio(name: str, file: BinaryIO, columns: Columns) -> Iterator[_Image]:
    """JSON, its short form JSON-MIN, or CSV."""
    if not name.lower().endswith(".json"):
        lines = text_lines(name, file, "CSV")
        header = next(lines)
        for record in csv.DictReader([header, *lines], delimiter=separator_of(header)):
            yield _flat(name, record, columns)
        return
    for task in parse_json(_read(name, file), name, "export it again"):
        if "data" not in task:
            yield _flat(name, task, columns)
            continue
        answers = [answer for answer in task["annotations"] if not answer.get("was_cancelled")]
        answers = [answer for answer in answers if answer.get("ground_truth")] or answers
        results = [result for answer in answers for result in answer["result"]]
        if columns.label != "label":
            results = [result for result in results if result.get("from_name") == columns.label]
        choices = [choice for result in results for choice in result["value"].get("choices", ())]
        yield _place(task["data"][_image_column(name, task["data"], columns)]), choices, ""


def _flat(name: str, record: dict[str, Any], columns: Columns) -> _Image:
    """An annotation in one line: its columns are Label Studio's own, those of the task, and those of the answers."""
    image = _image_column(name, record, columns)
    guessed = guess_columns(name, list(record), columns).label
    rest = [column for column in record if column not in _LABEL_STUDIO_OWN and column != image]
    label = guessed if guessed in record else "choice" if "choice" in record else rest[0] if len(rest) == 1 else ""
    if not label:
        raise UserError(f"{name}: {' or '.join(rest) or 'no column'} may be the class; set data.columns.label to one")
    value = record[label] or ""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    return _place(record[image]), value["choices"] if isinstance(value, dict) else [value], ""


def _image_column(name: str, record: dict[str, Any], columns: Columns) -> str:
    texts = {column: value for column, value in record.items() if isinstance(value, str)}
    usual = guess_columns(name, [column for column in texts if column != "id"], columns).path
    found = next((column for column, value in texts.items() if _IMAGE.search(urlsplit(value).path)), "")
    return usual if usual in texts else found


def _place(written: str) -> str:
    """The path in Label Studio's storage: 1/ab12cd34-cat.jpg for /data/upload/1/ab12cd34-cat.jpg."""
    if "/data/local-files/" in written:
        return parse_qs(urlsplit(written).query)["d"][0].lstrip("/")
    _, uploaded, path = written.partition("/data/upload/")
    return unquote(path) if uploaded else written


def _read(name: str, file: BinaryIO) -> bytes:
    content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UserError(f"{name}: is larger than 1 GiB; split it")
    return content


_READERS: Final[dict[str, Callable[[str, BinaryIO, Columns], Iterator[_Image]]]] = {
    "a Vertex AI file": _read_vertex,
    "a COCO file": _read_coco,
    "a Datumaro file": _read_datumaro,
    "a CVAT file": _read_cvat,
    "a Label Studio file": _read_label_studio,
}
