"""Resolvers of the last blessed model other than the candidate, and of the statistics of the previous data."""

import itertools
import os

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.components.common import resolver
from tfx.types import standard_artifacts

from storage.made_files import FILES_PROPERTY, find_change

_MODEL_ID = "current_model_id"  # properties that Evaluator and ModelCheck set on a blessing
_BLESSED = "blessed"
_RUN = "pipeline_run"  # type of the context that TFX creates for each run


class LastBlessedBaseline(resolver.ResolverStrategy):
    """Resolves `model` to the last blessed model that is not the candidate and has not failed its model check.

    TFX's LatestBlessedModelStrategy would give a blessed candidate as its own baseline on the next run. That comparison would
    be useless, and the changed input would prevent the Evaluator from using the cache.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Resolves the inputs.

        Args:
          store: not used.
          input_dict: all artifacts of `model`, `model_blessing` and `infra_blessing`; `candidate`, the model of this run.
        """
        del store
        checked = {  # if a model was checked several times, the last check counts
            blessing.get_int_custom_property(_MODEL_ID): blessing.get_int_custom_property(_BLESSED)
            for blessing in sorted(input_dict["infra_blessing"], key=lambda blessing: blessing.id)
        }
        blessed = {
            blessing.get_int_custom_property(_MODEL_ID)
            for blessing in input_dict["model_blessing"]
            if blessing.get_int_custom_property(_BLESSED) == 1 and checked.get(blessing.get_int_custom_property(_MODEL_ID), 1)
        }
        candidates = {model.id for model in input_dict["candidate"]}
        models = [model for model in input_dict["model"] if model.id in blessed - candidates]
        latest_first = sorted(models, key=lambda model: model.id, reverse=True)
        return {
            "model": list(itertools.islice(filter(_is_there, latest_first), 1)),
            "model_blessing": [],
            "infra_blessing": [],
            "candidate": input_dict["candidate"],
        }


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
    return not find_change(artifact.uri, digest, contents=artifact.type_name == standard_artifacts.Model.TYPE_NAME)


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
