"""How class folders are arranged: in folders for splits, in one folder that wraps everything, beside images without labels."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from base.errors import UserError
from images.dataset.archives import without_suffix
from images.dataset.row import SPLIT_NAMES
from images.settings import Layout
from models import features

# Words beside the split's that say nothing: train_images, TestSet.
_PLAIN_WORDS: Final = ("dataset", "data", "sets", "set", "images", "image", "imgs", "img", "part")
# Suffixes of files that are no images. Any other file may be one.
_TABLES: Final = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xml", ".yaml", ".yml", ".xlsx", ".mat")
DOCUMENTS: Final = (*_TABLES, ".txt", ".md", ".rst", ".pdf", ".html", ".log", ".py", ".ipynb")
_MAX_NAMED: Final = 5  # folders that a message names


@dataclass
class Arrangement:
    """Where class folders and splits are in a data set.

    Attributes:
      roots: folders whose folders are the classes, such as "" or "archive/train/", with their split or "".
      splits: splits of the folders inside the class folders, by name; empty if they mean nothing.
      unlabelled: folders of images without labels, such as "test/".
      notes: lines that tell a person how the folders are read, where that is not plain.
    """

    roots: dict[str, str]
    splits: dict[str, str] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """What the data set is read from, for `Reading.sources`."""
        if self.splits:
            return f"class folders around folders of splits: {_with_names(self.splits)}"
        if any(self.roots.values()) or self.unlabelled:
            splits = {root.rstrip("/"): split or "all" for root, split in self.roots.items()}
            return f"class folders in folders of splits: {_with_names(splits)}"
        root = next(iter(self.roots)) if len(self.roots) == 1 else "other folders"
        return f"class folders in {root.rstrip('/')}" if root else "class folders"

    def place(self, folder: str) -> tuple[str, str]:
        """Label and split of the images in a folder, such as "train/cat/2024"; each is "" if the folder says none."""
        inside = f"{folder}/"
        root = next((root for root in self.roots if inside.startswith(root)), None)
        if root is None:
            return "", ""
        label, *below = inside.removeprefix(root).rstrip("/").split("/")
        label = without_suffix(label)  # an archive of a class
        if self.splits:
            split = self.splits.get(below[0] if below else "", "")
            return label if split else "", split
        return label, self.roots[root]


class _Tree:
    """The folders that hold images: how many directly, and how many with the folders inside."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.direct: Counter[str] = Counter()
        for path in paths:
            if not path.lower().endswith(DOCUMENTS):
                self.direct[path.rpartition("/")[0]] += 1
        self.below: Counter[str] = Counter()
        self._inside: dict[str, set[str]] = defaultdict(set)
        for folder, count in self.direct.items():
            self.below[""] += count
            prefix = ""
            for name in folder.split("/") if folder else ():
                self._inside[prefix].add(name)
                prefix += f"{name}/"
                self.below[prefix] += count

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly inside that hold images at any depth."""
        return sorted(self._inside.get(prefix, ()))

    def loose(self, prefix: str) -> int:
        """Number of images directly in the folder."""
        return self.direct[prefix.rstrip("/")]

    def unwrap(self, prefix: str) -> str:
        """The folder inside that holds everything and has the first folders beside each other."""
        while len(names := self.folders(prefix)) == 1:
            inner = f"{prefix}{names[0]}/"
            if not self.folders(inner) or 20 * self.loose(inner) > self.below[inner]:
                break
            prefix = inner
        return prefix

    def is_unlabelled(self, prefix: str) -> bool:
        """Whether all images are in one folder whose name says nothing: test/1.png, test/images/1.png, pred/pred/1.png."""
        own = _words(prefix.rstrip("/").rpartition("/")[2])
        while not self.loose(prefix) and len(names := self.folders(prefix)) == 1:
            if set(_words(names[0])) - {*own, *_PLAIN_WORDS, *SPLIT_NAMES}:
                return False
            prefix += f"{names[0]}/"
        return self.loose(prefix) == self.below[prefix]


def find_arrangement(folder: str, paths: Iterable[str], layout: Layout, labelled: bool) -> Arrangement:
    """Finds out how the folders of a data set are to be read.

    Args:
      folder: the data folder, for messages.
      paths: paths of all files, relative to the folder.
      layout: as the configuration says; with "auto" it is seen from the names.
      labelled: whether the images are for training. If not, folders that can be read in two ways are read as classes.

    Raises:
      UserError: the folders can be read in two ways, or not as `layout` says.
    """
    tree = _Tree(paths)
    root = tree.unwrap("")
    names = tree.folders(root)
    notes = [f"Data: all images are in {root.rstrip('/')}, which is read as the data folder"] if root else []
    splits = split_folders(names)
    if layout == "class" or (layout == "auto" and not splits and not labelled):
        return Arrangement({root: ""}, notes=notes)
    if layout == "folder/class":
        return Arrangement({f"{root}{name}/": "" for name in names}, notes=notes)
    if layout == "class/split":
        names = sorted({inner for name in names for inner in tree.folders(f"{root}{name}/")})
        splits = split_folders(names)
    if layout == "auto" and not splits:
        _check_classes(folder, tree, root, "class")
        return Arrangement({root: ""}, notes=notes)
    if not splits:
        raise UserError(
            f"{folder}: data.layout is {layout}, but {_list(names) or 'folders'} name no splits; correct one of them"
        )
    if layout == "class/split":
        return Arrangement({root: ""}, splits=splits, notes=[*notes, _note_on_splits(splits)])
    found = _by_splits(folder, tree, root, splits, notes, labelled)
    for prefix in found.roots if layout == "auto" and labelled else ():
        _check_classes(folder, tree, prefix, "split/class")
    return found


def split_folders(names: Iterable[str]) -> dict[str, str]:
    """The splits that folders are named by: {"Training_set": "train", "Test_set": "test"}.

    Case does not matter. Beside the split's name there may be words that say nothing, and others that all of them share.

    Returns:
      Name to split, without the names of other folders; empty unless there are two splits or more.
    """
    readings: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        split, others = _split_in(name)
        if split:
            readings[others][name] = split
    best = max(readings.values(), key=lambda found: (len(set(found.values())), len(found)), default={})
    return best if len(set(best.values())) > 1 else {}


def split_of(name: str) -> str:
    """The split that a folder or a table of this name is for; "" if its name says no split, or more than that."""
    split, others = _split_in(name)
    return "" if others else split


def split_of_shard(path: str) -> str:
    """The split that is a word in the name of a file: train for data/train-00000-of-00002.parquet; "" if there is none."""
    return next((SPLIT_NAMES[word] for word in _words(path.rpartition("/")[2]) if word in SPLIT_NAMES), "")


def _by_splits(folder: str, tree: _Tree, root: str, splits: dict[str, str], notes: list[str], labelled: bool) -> Arrangement:
    prefixes = {name: f"{root}{name}/" for name in tree.folders(root)}
    unlabelled = [name for name, prefix in prefixes.items() if tree.is_unlabelled(prefix)]
    with_classes = [name for name in splits if name not in unlabelled]
    others = [name for name in prefixes if name not in splits and name not in unlabelled]
    if labelled and others:
        raise UserError(
            f"{folder}: has folders for splits ({_list(splits)}), and others beside them ({_list(others)}); "
            f"move those away, or set data.layout to class if all of them are classes"
        )
    if labelled and not with_classes:
        raise UserError(
            f"{folder}: {_list(splits)} hold images but no class folders; if they are the classes, set data.layout to class; "
            f"if they are splits, put class folders into them, or add a manifest"
        )
    inner = {name: tree.unwrap(prefixes[name]) for name in with_classes}
    if any(tree.below[prefixes[name]] and inner[name] == prefixes[name] for name in with_classes):
        inner = {name: prefixes[name] for name in with_classes}
    given = {splits[name] for name in with_classes}
    taken = [split for split in features.SPLITS if split not in given]
    rest = f"; {' and '.join(taken)} images are taken from train" if taken and "train" in given else ""
    notes.append(_note_on_splits({name: splits[name] for name in with_classes}) + rest)
    for name in unlabelled:
        count = tree.below[prefixes[name]]
        notes.append(
            f"Data: {prefixes[name].rstrip('/')} has {count} images without labels, which are left out; "
            f"a model answers them with score.path, or fpn score --data"
        )
    return Arrangement(
        # All images of a single split are for all splits.
        {prefix: splits[name] if len(given) > 1 else "" for name, prefix in inner.items()},
        unlabelled=tuple(prefixes[name] for name in unlabelled),
        notes=notes,
    )


def _check_classes(folder: str, tree: _Tree, root: str, layout: Layout) -> None:
    """Raises an error if the folders in `root` may be no classes; otherwise `layout` is what they are."""
    names = tree.folders(root)
    if len(names) < 2:
        return
    inner = {name: set(tree.folders(f"{root}{name}/")) for name in names}
    if copy := next((name for name in names if len(inner[name].intersection(names)) > 1), ""):
        raise UserError(
            f"{folder}: {root}{copy} holds folders of the same names as those beside it "
            f"({_list(sorted(inner[copy].intersection(names)))}); move it away if it is a second copy of the data, or set "
            f"data.layout to {layout} if {_list(names)} are classes"
        )
    if doubtful := [name for name in names if split_of(name) or _is_plain(name)]:
        raise UserError(
            f"{folder}: {_list(doubtful)} may be a class or not; set data.layout to {layout} if {_list(names)} are classes; "
            f"if not, give {root}{doubtful[0]} as data.path, move the others away, or add a manifest"
        )
    if shared := _shared_inside(tree, root, inner):
        if layout == "split/class":
            second = f"arrange the folders anew if those inside ({_list(shared)}) are the classes"
        elif len(split_folders(shared)) == len(shared):
            second = f"to class/split if the folders inside ({_list(shared)}) are splits"
        else:
            second = f"to folder/class if those inside ({_list(shared)}) are; splits need the names train, val and test"
        many = "all" if all(found.issuperset(shared) for found in inner.values()) else "most"
        raise UserError(
            f"{folder}: {many} folders have the same folders inside, so it can be read in two ways; set data.layout to "
            f"{layout} if the outer ones ({_list(names)}) are the classes, or {second}"
        )


def _shared_inside(tree: _Tree, root: str, inner: dict[str, set[str]]) -> list[str]:
    """Names of folders inside that several of the outer folders have; none unless most have them, and few have others."""
    counts = Counter(name for found in inner.values() for name in found)
    shared = sorted(name for name, count in counts.items() if count > 1)
    around = [name for name, found in inner.items() if found.intersection(shared)]
    around = [name for name in around if 2 * tree.loose(f"{root}{name}/") < tree.below[f"{root}{name}/"]]
    return shared if 2 * len(around) > len(inner) and 2 * len(shared) > len(counts) and len(shared) > 1 else []


def _split_in(name: str) -> tuple[str, tuple[str, ...]]:
    """The split that a folder's name has as a word, and the other words of the name; ("", ()) if it has none or several."""
    words = [
        next((word.removesuffix(plain) for plain in _PLAIN_WORDS if word.removesuffix(plain) in SPLIT_NAMES), word)
        for word in _words(name)
        if word not in _PLAIN_WORDS
    ]
    found = [word for word in words if word in SPLIT_NAMES]
    if len(found) != 1:
        return "", ()
    words.remove(found[0])
    return SPLIT_NAMES[found[0]], tuple(words)


def _is_plain(name: str) -> bool:
    """Whether a folder's name says nothing: images, data_2; a number alone may be a class."""
    words = _words(name)
    return any(word in _PLAIN_WORDS for word in words) and all(word in _PLAIN_WORDS or word.isdigit() for word in words)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+", name.casefold())


def _note_on_splits(splits: dict[str, str]) -> str:
    return f"Data: read as split folders: {_with_names(splits)}"


def _with_names(splits: dict[str, str]) -> str:
    return ", ".join(f"{name} ({split})" for name, split in splits.items())


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
