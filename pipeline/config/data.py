"""Where the images are, how they are ingested, and what the network sees of them."""

from typing import Annotated

from pydantic import Field, model_validator

from images.file_settings import Pages
from images.settings import MANIFEST, ColumnType, Duplicates, Layout, Originals
from models.image_settings import Channels, Intensity, Resize, Store
from pipeline.config.choices import SampleName
from pipeline.config.section import Count, HomePath, Positive, Range, Section, Share, WholeNumber


class SplitsConfig(Section):
    """Number of hash buckets of each split; a split's share is its number over the sum of all."""

    train: Count = Field(8, description="hash buckets of the split that fits the model")
    eval: Count = Field(1, description="hash buckets of the split that stops training early")
    test: Count = Field(1, description="hash buckets of the split that the Evaluator alone sees")
    stratify: bool = Field(False, description="give every split the same share of each class, as far as groups allow")


class SpansConfig(Section):
    """Which spans give images for training, for a path with `{SPAN}`; eval and test have those of all spans."""

    newest: Count = Field(1, description="number of spans, the newest, of which all images of the train split are used")
    replay: Share = Field(
        0.2, description="share of the older spans' train split that is used, too, chosen by the hash of the group"
    )


class ColumnsConfig(Section):
    """Names of the manifest's columns. All other columns become features `meta/<column>`."""

    path: str = Field("path", description="column with the file, relative to the manifest's folder")
    label: str = Field("label", description="column with the name of the class")
    group: str = Field("group", description="column with what must not be spread over splits, such as the patient (optional)")
    split: str = Field("split", description="column with train, eval or test (optional)")
    types: dict[str, ColumnType] = Field(
        {}, description="types of other columns, by name; text if not given (a Parquet manifest has types of its own)"
    )


class DataConfig(Section):
    """Where the images are and how they are ingested."""

    path: HomePath = Field(
        description="folder of class folders, of train/eval/test folders of these, with a manifest, of TFRecord files or of a "
        "prepared TensorFlow Datasets directory; with {SPAN} in it, one such folder a span"
    )
    sample: SampleName | None = Field(None, description="known data set to write to `path` if it is not there")
    multi_label: bool = Field(
        False, description="an image may have several classes, written `one|two` in the manifest, or none"
    )
    manifest: str = Field(
        MANIFEST, description="name of the manifest in the folder, .csv, .tsv, .jsonl, .parquet, .json or .xml"
    )
    corrections: HomePath | None = Field(
        None, description="table in the data folder, or elsewhere, of labels that replace the data's; see docs/labels.md"
    )
    layout: Layout = Field(
        "auto",
        description="what folders mean: seen from their names, or class folders alone, in split folders, around split folders, "
        "or in folders that mean nothing",
    )
    columns: ColumnsConfig = ColumnsConfig()
    splits: SplitsConfig = SplitsConfig()
    spans: SpansConfig | None = Field(
        None,
        description="{newest: number of spans, replay: share}: train on the newest spans and a share of the older ones; on "
        "all if not given; see docs/continual.md",
    )
    labels: list[str] | None = Field(None, description="the known classes; images of others are set aside; any if not given")
    pages: Pages = Field("first", description="of a multi-page TIFF: its first page, or each as an image")
    allow_links: bool = Field(False, description="follow symbolic links and manifest paths that lead out of the data folder")
    duplicates: Duplicates = Field(
        "report",
        description="group: duplicates count as one group and so share a split, for another pass over the files; those that "
        "the data puts into several go to test, else eval",
    )
    near_duplicates: Annotated[int, Field(ge=0, le=8)] = Field(
        2,
        description="bits of 64 in which perceptual hashes of near duplicates may differ: 2 finds images that were encoded or "
        "resized anew, 4 more, and more that only look alike",
    )
    max_rejected: Share = Field(
        0.05, description="share of unusable files, or of lost bytes of TFRecord files, that stops the run when exceeded"
    )
    originals: Originals = Field(
        "auto",
        description="whether the train and eval examples hold a copy of the image files, or the pixels that the network sees "
        "in their place; auto: reference from 1 GB of files on; a cross-validation always copies",
    )
    store: Store = Field(
        "uint8",
        description="how the pixels that the network sees are kept: as they are, or as small files, of which jpeg changes them "
        "a little; see docs/performance.md",
    )
    max_pixels: Count = Field(100_000_000, description="larger images are set aside undecoded")
    schema_file: HomePath | None = Field(None, alias="schema", description="curated schema (.pbtxt); inferred if not given")
    max_drift: Positive | None = Field(
        0.3, description="largest distance of a summary's distribution from the previous run's that is no anomaly; null: any"
    )
    max_skew: Positive | None = Field(
        0.3,
        description="largest distance of a summary's distribution in eval or test from train's that is no anomaly; null: any",
    )
    stop_on_anomalies: bool = Field(False, description="stop before training when the validator finds anomalies")

    @model_validator(mode="after")
    def _spans_are_in_path(self) -> "DataConfig":
        if self.spans and "{SPAN" not in self.path:
            raise ValueError(f"spans: are told apart by {{SPAN}} in path, which is {self.path}; give a path with it")
        return self


class TilesConfig(Section):
    """How the network looks at large images: at square tiles with shared weights."""

    size: Count = Field(description="pixels of a tile's side, which the network sees")
    overlap: WholeNumber = Field(0, description="pixels that neighbours share, at least")


class ImageConfig(Section):
    """What the network sees."""

    height: Count = Field(224, description="pixels")
    width: Count = Field(224, description="pixels")
    channels: Channels = Field(3, description="1 grey, 3 RGB, 4 RGBA")
    tiles: TilesConfig | None = Field(
        None,
        description="{size: pixels, overlap: pixels}: the network sees square tiles of a large image, and its answer is a "
        "smooth maximum over theirs; the whole image if not given; see docs/model.md",
    )
    resize: Resize = Field("stretch", description="how another aspect ratio is made to fit")
    antialias: bool = Field(True, description="filter before making images smaller")
    intensity: Intensity = Field(
        "type",
        description="what becomes black and white: the ends of the pixel type's range (of a DICOM file: of its own window), "
        "those of `window`, or `percentiles` of the training split's pixels",
    )
    window: Range | None = Field(
        None, description="pixel values of 16-bit, float and DICOM files that become black and white, such as [-1000, 400]"
    )
    percentiles: Range = Field([0.5, 99.5], description="of all pixels, for intensity percentiles")

    @model_validator(mode="after")
    def _tiles_fit(self) -> "ImageConfig":
        if self.tiles and self.tiles.overlap >= self.tiles.size:
            raise ValueError(f"tiles.overlap ({self.tiles.overlap}) must be below tiles.size ({self.tiles.size})")
        if self.tiles and self.tiles.size > min(self.height, self.width):
            raise ValueError(
                f"tiles.size ({self.tiles.size}) must not be above height ({self.height}) and width ({self.width})"
            )
        return self

    @model_validator(mode="after")
    def _has_a_range(self) -> "ImageConfig":
        if (self.intensity == "window") != (self.window is not None):
            raise ValueError("intensity: window and window: [low, high] need each other")
        for name, pair in (("window", self.window), ("percentiles", self.percentiles)):
            if pair and pair[0] >= pair[1]:
                raise ValueError(f"{name} must rise, is {pair}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must be 0 to 100, are {self.percentiles}")
        return self
