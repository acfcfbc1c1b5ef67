"""The last blessed model other than the candidate itself."""

import ml_metadata as mlmd
from tfx import types
from tfx.dsl.components.common import resolver

_MODEL_ID = "current_model_id"  # properties that the Evaluator leaves on a blessing
_BLESSED = "blessed"


class LastBlessedBaseline(resolver.ResolverStrategy):
    """Resolves `model` to the last blessed model that is not the candidate.

    The stock LatestBlessedModelStrategy would offer a blessed candidate as its own baseline on the next run: a comparison
    that says nothing, and a changed input that keeps the Evaluator out of the cache.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Args: `model` and `model_blessing`, all there are; `candidate`, the model that this run has trained."""
        del store
        blessed = {
            blessing.get_int_custom_property(_MODEL_ID)
            for blessing in input_dict["model_blessing"]
            if blessing.get_int_custom_property(_BLESSED) == 1
        }
        candidates = {model.id for model in input_dict["candidate"]}
        models = [model for model in input_dict["model"] if model.id in blessed - candidates]
        return {
            "model": [max(models, key=lambda model: model.id)] if models else [],
            "model_blessing": [],
            "candidate": input_dict["candidate"],
        }
