"""Resolvers of the model that is served where the run pushes to, and of the statistics of the previous data."""

import logging
import os
from collections.abc import Callable

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.components.common import resolver
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.earlier_runs.baseline import DIGEST, ERROR, Baseline, find_base_model, find_baseline
from storage.made_files import FILES_PROPERTY, find_change

_RUN = "pipeline_run"  # type of the context that TFX creates for each run


class ServedBaseline(resolver.ResolverStrategy):
    """Resolves `model` to what `find_baseline` finds, as an artifact of the store.

    The artifact is made once for each version and digest, so an unchanged situation gives the same artifact, and the Evaluator
    uses its cache. TFX goes on after a resolver that fails. So an error becomes a property of the artifact, and the Evaluator
    raises it.
    """

    def __init__(self, folder: str) -> None:
        """`folder` has the versions that the run pushes to, local or a URI."""
        self._folder = folder

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Resolves the inputs.

        Args:
          store: the metadata store.
          input_dict: `candidate`, the model of this run; `model`, which is ignored.
        """
        (candidate,) = input_dict["candidate"]
        models = _found(store, self._folder, lambda: find_baseline(self._folder, path_utils.serving_model_path(candidate.uri)))
        return {"model": models, "candidate": input_dict["candidate"]}


class BaseModel(resolver.ResolverStrategy):
    """Resolves `model` to what `find_base_model` finds, as an artifact of the store; see `ServedBaseline`."""

    def __init__(self, folder: str) -> None:
        """`folder` has the model or its versions, local or a URI."""
        self._folder = folder

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Resolves the inputs.

        Args:
          store: the metadata store.
          input_dict: `model`, which is ignored.
        """
        store.put_artifact_type(standard_artifacts.Model().artifact_type)  # which a new store does not know yet
        return {"model": _found(store, self._folder, lambda: find_base_model(self._folder))}


def _found(store: mlmd.MetadataStore, folder: str, find: Callable[[], Baseline | None]) -> list[types.Artifact]:
    """The artifact of the model that is found, if any; or of the folder, with the error, which the model's user tells."""
    try:
        found = find()
        return [_artifact(store, found.path, {DIGEST: found.digest})] if found else []
    except Exception as error:
        logging.exception("%s: the model can't be found", folder)
        return [_artifact(store, folder, {ERROR: str(error)})]


def _artifact(store: mlmd.MetadataStore, uri: str, properties: dict[str, str]) -> types.Artifact:
    """The Model in the store that has this URI and these custom properties; it is added if there is none."""
    kind = store.get_artifact_type(standard_artifacts.Model.TYPE_NAME)
    for known in store.get_artifacts_by_uri(uri):
        found = {key: value.string_value for key, value in known.custom_properties.items()}
        if known.type_id == kind.id and properties.items() <= found.items():
            return artifact_utils.deserialize_artifact(kind, known)
    made = metadata_store_pb2.Artifact(type_id=kind.id, uri=uri, state=metadata_store_pb2.Artifact.LIVE)
    for key, value in properties.items():
        made.custom_properties[key].string_value = value
    (number,) = store.put_artifacts([made])
    (stored,) = store.get_artifacts_by_id([number])
    return artifact_utils.deserialize_artifact(kind, stored)


class PreviousStatistics(resolver.ResolverStrategy):
    """Resolves `previous` to the statistics of the last run that reached Transform, if they differ from those of this run.

    Runs that stopped at anomalies, or that only examined the data, are ignored: the next data should not be compared with
    theirs. So are runs whose statistics are not there any more as they were made. If the data has not changed, the last run has
    the same statistics as this run. These are left out, because comparing data with itself is useless and the changed input
    would prevent the validator from using the cache.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Resolves the inputs.

        Args:
          store: the metadata store.
          input_dict: `previous`, all statistics; `current`, those of this run; `transformed`, all transform graphs.
        """
        reached_transform = _outputs_by_run(store, input_dict["transformed"], "transform_graph")
        current = {statistics.id for statistics in input_dict["current"]}
        earlier = {
            run: statistics
            for run, statistics in _outputs_by_run(store, input_dict["previous"], "statistics").items()
            if run in reached_transform and statistics.id not in current and _is_there(statistics)
        }
        return {
            "previous": [earlier[max(earlier)]] if earlier else [],
            "current": input_dict["current"],
            "transformed": [],
        }


def _is_there(artifact: types.Artifact) -> bool:
    """Whether an artifact of an earlier run is still as it was made; nobody can make it again for this run."""
    digest = artifact.get_string_custom_property(FILES_PROPERTY)
    if not digest:
        return os.path.isdir(artifact.uri)
    return not find_change(artifact.uri, digest, contents=False)


def _outputs_by_run(store: mlmd.MetadataStore, artifacts: list[types.Artifact], key: str) -> dict[int, types.Artifact]:
    """For each run, by the id of its context, the artifact that a component has output under the key, new or from the cache.

    Ids grow with time. The store also records the results of resolvers as outputs, but under other keys.
    """
    by_id = {artifact.id: artifact for artifact in artifacts}
    return {
        context.id: by_id[event.artifact_id]
        for event in (store.get_events_by_artifact_ids(list(by_id)) if by_id else [])
        if event.type == metadata_store_pb2.Event.OUTPUT and event.path.steps[0].key == key
        for context in store.get_contexts_by_execution(event.execution_id)
        if context.type == _RUN
    }
