"""Embeds the images of all splits, and finds the labels that do not fit what linear models on other images say.

`label_issues` gets `labels.csv` (all of them, the worst first), `corrections.csv` (for a person to edit) and the counts. The
embeddings of all images are in memory, the images only by the batch.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils, standard_component_specs
from tfx.utils import path_utils

from components.bulk_inferrer.model import Model
from components.bulk_inferrer.reading import read_images
from components.examples import split_files
from components.label_check.results import OUTPUT_KEY, LabelCheckResult, write_result
from components.label_check.settings import LabelCheckSettings
from components.label_check.tables import used_corrections, write_tables
from evaluation.label_issues import COLUMNS, find_label_issues
from evaluation.probes import cross_validate, find_learnable
from images.layout import find_layout
from models import features
from models.packing import unpack

SETTINGS_KEY: Final = "settings"
DATA_KEY: Final = "data"
_SPLIT: Final = "split"


class Executor(base_executor.BaseExecutor):
    """See the module."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the tables, then the counts.

        Raises:
          UserError: the corrections in use, or the data that they are of, can't be read any more.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = unpack(LabelCheckSettings, exec_properties[SETTINGS_KEY])
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[standard_component_specs.MODEL_KEY]))
        folder = artifact_utils.get_single_uri(output_dict[OUTPUT_KEY])
        used = {}
        if find_layout(examples):  # else they are not of the data folder
            used = used_corrections(exec_properties[DATA_KEY], settings.source)
        vectors, rows = _embed(examples, Model(model, embeddings=True), settings.batch_size)
        looked_at, issues, result = _look(vectors, rows, settings)
        splits = dict(zip(rows[features.FILENAME], rows[_SPLIT], strict=True))
        issues[_SPLIT] = [splits[path] for path in issues["path"]]
        fileio.makedirs(folder)
        write_tables(issues, looked_at[features.FILENAME], used, folder)
        write_result(result, folder)


def _embed(examples: Artifact, model: Model, batch_size: int) -> tuple[np.ndarray, pd.DataFrame]:
    """The embeddings of all images, float32 [N, d], and a row for each with its name, group, label and split."""
    vectors: list[np.ndarray] = []
    rows: list[tuple[str, str, str, str]] = []
    for split in artifact_utils.decode_split_names(examples.split_names):
        for file in split_files(examples, [split]):
            for answers in model.answer(read_images(file, batch_size, model.image_shape), batch_size):
                assert answers.embeddings is not None
                vectors.append(answers.embeddings)
                rows += [
                    (image.path, image.group, features.join_labels(sorted(image.labels)), split) for image in answers.images
                ]
    return np.concatenate(vectors), pd.DataFrame(rows, columns=[features.FILENAME, features.GROUP, features.LABEL, _SPLIT])


def _look(
    vectors: np.ndarray, rows: pd.DataFrame, settings: LabelCheckSettings
) -> tuple[pd.DataFrame, pd.DataFrame, LabelCheckResult]:
    """The rows whose labels were looked at, those that are probably wrong as `find_label_issues` returns them, and counts."""
    multi_label, folds = settings.source.multi_label, settings.folds
    learnable = find_learnable(rows, multi_label, folds)
    known = rows[learnable].reset_index(drop=True)
    classes = sorted({name for text in known[features.LABEL].unique() for name in features.split_labels(text, multi_label)})
    if known[features.LABEL].nunique() < 2:
        reason = f"too few classes have images of {folds} groups or more; give more images, or a smaller labels.folds"
        return known, pd.DataFrame(columns=list(COLUMNS)), LabelCheckResult(0, 0, len(rows), reason)
    issues = find_label_issues(cross_validate(vectors[learnable], known, classes, multi_label, folds))
    return known, issues, LabelCheckResult(len(known), len(issues), len(rows) - len(known))
