"""Where models go, and what they answer there."""

from pydantic import Field

from pipeline.config.section import Count, HomePath, Section


class RegistryConfig(Section):
    """The MLflow model registry that pushed versions are registered with."""

    uri: str = Field(description="of the tracking server, such as http://mlflow:5000, or of a local store, as MLflow takes it")
    model: str | None = Field(None, description="name of the registered model; the pipeline's if not given")
    python: HomePath | None = Field(None, description="interpreter that has MLflow; that of `make mlflow` if not given")


class PushConfig(Section):
    """Where blessed models go."""

    path: HomePath | None = Field(
        None,
        description="folder of numbered versions, or a URI such as gs://bucket/models; `pushed` in the output if not given",
    )
    keep: Count | None = Field(5, description="versions to keep, the newest; null: all")
    replace: bool = Field(False, description="push over a model with other classes; without it, that is an error")
    sign: HomePath | None = Field(
        None,
        description="PEM file with a private key: pushed versions are signed with it, see [trust.md](trust.md); on Kubeflow "
        "in the pods",
    )
    registry: RegistryConfig | None = Field(
        None,
        description="MLflow registry in which each pushed version is registered: `uri`, and `model`, its name there; "
        "see [pushing.md](pushing.md)",
    )


class ScoreConfig(Section):
    """Images without labels, which each blessed model or `fpn score` classifies."""

    path: HomePath | None = Field(
        None, description="folder of images as `data.path`, labelled or not, that each run answers if its model is blessed"
    )
    batch_size: Count = Field(64, description="images per step")
    embeddings: bool = Field(False, description="the images' embeddings, too; see [embeddings.md](embeddings.md)")
    shard_images: Count = Field(
        1024, description="images of a file of answers, which `fpn score` writes as a whole or not at all"
    )
