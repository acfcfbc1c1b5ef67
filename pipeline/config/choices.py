"""Names that the configuration and the pipeline share; those of the network, the images and the evaluation are with these."""

from typing import Literal

SampleName = Literal["digits", "fashion_mnist"]
TrackerName = Literal["mlflow", "wandb"]
Target = Literal["kubeflow", "vertex"]  # what a compiled pipeline is for
PipelineName = Literal["training", "monitor"]
ComponentName = Literal[
    "Lookup",
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "Transform",
    "Tuner",
    "Trainer",
    "Baseline",
    "Evaluator",
    "ModelCheck",
    "ModelFormats",
    "LabelCheck",
    "Pusher",
    "ScoreExampleGen",
    "BulkInferrer",
]
