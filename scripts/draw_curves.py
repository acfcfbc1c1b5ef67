"""Draws a training's curves from the history.csv that the Trainer leaves: loss and accuracy of both splits, the learning rate.

.venv/bin/python -m scripts.draw_curves output/NAME/artifacts/Trainer/model_run/ID/history.csv curves.png --title "..."
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

_PANELS = {"loss": ("loss", "val_loss"), "accuracy": ("accuracy", "val_accuracy"), "learning rate": ("learning_rate",)}


def draw(rows: list[dict[str, str]], title: str, path: Path) -> None:
    """Draws a panel each of loss, accuracy and learning rate over the epochs.

    Args:
      rows: of history.csv.
      title: what stands above.
      path: of the picture.
    """
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(10.5, 3.3), layout="constrained")
    epochs = [int(row["epoch"]) for row in rows]
    for axis, (name, columns) in zip(axes, _PANELS.items(), strict=True):
        for column, colour in zip(columns, ("#c2571a", "#1f5fa8"), strict=False):
            label = "eval split" if column.startswith("val_") else "training, augmented"
            axis.plot(epochs, [float(row[column]) for row in rows], color=colour, label=label if len(columns) > 1 else None)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if len(columns) > 1:
            axis.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("history", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    with options.history.open(encoding="utf-8") as file:
        draw(list(csv.DictReader(file)), options.title, options.output)


if __name__ == "__main__":
    main()
