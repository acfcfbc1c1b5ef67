"""Folders that are pushed and compared as SavedModels, but never loaded."""

from pathlib import Path


def save_model(folder: Path, weights: str, classes: tuple[str, ...] = ("cat", "dog")) -> str:
    """Writes a graph, weights and the names of classes; returns the folder."""
    files = {"saved_model.pb": "graph", "variables/variables.index": weights, "assets/labels": "\n".join(classes)}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)
