"""What the network sees: records without defaults, which are the configuration's to have.

Apart from `models.settings`, so that what is told to the training is no part of the code that ingestion depends on.
"""

from dataclasses import dataclass
from typing import Literal

Channels = Literal[1, 3, 4]
Resize = Literal["stretch", "letterbox", "crop"]
Intensity = Literal["type", "window", "percentiles"]


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What the network sees.

    Attributes:
      height: rows.
      width: columns.
      channels: 1 grey, 3 RGB, 4 RGBA.
      resize: how another aspect ratio is made to fit, see `preprocessing.resize_image`.
      antialias: whether to filter before making images smaller.
      intensity: what becomes black and white, see `preprocessing.to_network_size`.
      window: pixel values that do, for intensity window.
      percentiles: of all pixels of the training split, for intensity percentiles.
    """

    height: int
    width: int
    channels: Channels
    resize: Resize
    antialias: bool
    intensity: Intensity
    window: tuple[float, float] | None
    percentiles: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


@dataclass(frozen=True, kw_only=True)
class TransformSettings:
    """Of `preprocessing.preprocessing_fn`.

    Attributes:
      image: what the network sees.
      multi_label: whether an image can have any number of classes.
      code: anything whose change must make the component run again.
    """

    image: ImageSettings
    multi_label: bool
    code: str
