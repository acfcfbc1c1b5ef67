"""What several workers can train together, checked before anything runs."""

import itertools

from base.errors import UserError
from pipeline.config.whole import Config
from pipeline.dag.component_settings import train_settings

_KEYS = ("batch_size", "accumulate_steps", "xla")


def check_workers(config: Config, devices: int) -> None:
    """Looks at the settings of `train`, and at those that the search may find.

    Args:
      config: the whole configuration.
      devices: of all workers together.

    Raises:
      UserError: workers can't train with one of them.
    """
    from models.workers import WorkersError, check_settings  # loads TensorFlow

    space = config.tune.space if config.tune.enabled else {}
    tried = [space.get(f"train.{key}", [getattr(config.train, key)]) for key in _KEYS]
    # A range has whole numbers, and so one that no number of devices divides.
    choices = [[values["min"], values["min"] + 1] if isinstance(values, dict) else values for values in tried]
    for values in itertools.product(*choices):
        train = config.train.model_copy(update=dict(zip(_KEYS, values, strict=True)))
        try:
            check_settings(train_settings(train), devices, train.batch_size)
        except WorkersError as error:
            raise UserError(str(error)) from error
