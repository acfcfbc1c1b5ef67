"""What lies in folders of images and is no part of a data set: left by systems, galleries and this project's own runs."""

from collections import Counter
from collections.abc import Collection
from typing import Final

# In lower case. Names that begin with a dot are hidden, and skipped too.
_FILES: Final = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "zbthumbnail.info"}
_FOLDERS: Final = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
_LITTER: Final = _FILES | _FOLDERS
# Names that only the output folder of a run, or of fpn score, has together.
_OUTPUTS: Final = ({"metadata.sqlite"}, {".lock", "runs"}, {"job.json", "scores"})


def litter_kind(name: str) -> str:
    """What kind of litter a file or folder of this name is, such as "Thumbs.db", "._*" or "hidden files"; "" if it is none."""
    if name.startswith("."):
        return "._*" if name.startswith("._") else name if name in (".DS_Store", ".ipynb_checkpoints") else "hidden files"
    return name if name.lower() in _LITTER else ""


def holds_outputs(names: Collection[str]) -> bool:
    """Whether a folder with these files and folders is one that this project has written."""
    return any(outputs.issubset(names) for outputs in _OUTPUTS)


def describe_skipped(skipped: Counter[str]) -> list[str]:
    """A line that counts what was skipped; none if nothing was."""
    if not skipped:
        return []
    counts = (kind if kind.startswith("output") else f"{kind} {count}" for kind, count in sorted(skipped.items()))
    return [f"Data: skipped: {', '.join(counts)}"]
