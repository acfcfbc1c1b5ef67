"""The last blessed model other than the candidate itself, and the statistics of the data before this."""

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.components.common import resolver

_MODEL_ID = "current_model_id"  # properties that Evaluator and ModelCheck leave on a blessing
_BLESSED = "blessed"
_RUN = "pipeline_run"  # type of the context that TFX makes for each run


class LastBlessedBaseline(resolver.ResolverStrategy):
    """Resolves `model` to the last blessed model that is not the candidate and did not fail its check, if it had one.

    The stock LatestBlessedModelStrategy would offer a blessed candidate as its own baseline on the next run: a comparison
    that says nothing, and a changed input that keeps the Evaluator out of the cache.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Args: `model`, `model_blessing` and `infra_blessing`, all there are; `candidate`, that this run has trained."""
        del store
        checked = {  # the last check of a model counts
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
        return {
            "model": [max(models, key=lambda model: model.id)] if models else [],
            "model_blessing": [],
            "infra_blessing": [],
            "candidate": input_dict["candidate"],
        }


class PreviousStatistics(resolver.ResolverStrategy):
    """Resolves `previous` to the statistics of the last run that went on to Transform, if they are not this run's own.

    A run that ended at anomalies is no measure for the mended data of the next one, nor is a mere look at the data. This
    run's own statistics are left out, for the last run has had them too where nothing has changed, and comparing data
    with itself says nothing and keeps the validator out of the cache.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Args: `previous`, all statistics there are; `current`, those of this run; `transformed`, all transform graphs."""
        went_on = _put_out(store, input_dict["transformed"], "transform_graph")
        current = {statistics.id for statistics in input_dict["current"]}
        earlier = {
            run: statistics
            for run, statistics in _put_out(store, input_dict["previous"], "statistics").items()
            if run in went_on and statistics.id not in current
        }
        return {
            "previous": [earlier[max(earlier)]] if earlier else [],
            "current": input_dict["current"],
            "transformed": [],
        }


def _put_out(store: mlmd.MetadataStore, artifacts: list[types.Artifact], key: str) -> dict[int, types.Artifact]:
    """Which of the artifacts a component has put out under this key in each run, new or from the cache, by the run's id.

    Ids rise with time. A resolver's results count as its outputs, too, and are told apart by their keys.
    """
    by_id = {artifact.id: artifact for artifact in artifacts}
    return {
        context.id: by_id[event.artifact_id]
        for event in (store.get_events_by_artifact_ids(list(by_id)) if by_id else [])
        if event.type == metadata_store_pb2.Event.OUTPUT and event.path.steps[0].key == key
        for context in store.get_contexts_by_execution(event.execution_id)
        if context.type == _RUN
    }
