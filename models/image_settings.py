"""Settings of what the network sees: records without defaults, because only the configuration has defaults.

They are not in `models.settings`, so that the code that ingestion depends on does not include the settings of training.
"""

from dataclasses import dataclass
from typing import Final, Literal

Channels = Literal[1, 3, 4]
Resize = Literal["stretch", "letterbox", "crop"]
Intensity = Literal["type", "window", "percentiles"]
Store = Literal["uint8", "png", "jpeg"]

# Texts of a PNG that may say how it is turned, and that no TensorFlow graph can look into, for they are compressed or written
# as digits. The exported graph refuses such files, and ingestion writes them again.
HIDDEN_TURNS: Final = (b"Raw profile type exif", b"XML:com.adobe.xmp\0\1")


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What the network sees.

    Attributes:
      height: rows.
      width: columns.
      channels: 1 grey, 3 RGB, 4 RGBA.
      resize: how an image with another aspect ratio is made to fit, see `preprocessing.resize_image`.
      antialias: whether to filter before making images smaller.
      intensity: how the values that become black and white are chosen, see `preprocessing.to_network_size`.
      window: for intensity "window", the pixel values that become black and white.
      percentiles: for intensity "percentiles", two percentiles of all pixels of the training split.
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
    """Settings of `preprocessing.preprocessing_fn`.

    Attributes:
      image: what the network sees.
      multi_label: whether an image can have any number of classes.
      code: a text whose change must make the component run again, such as a digest of code.
    """

    image: ImageSettings
    multi_label: bool
    code: str
