"""Every option of the network learns with the default optimizer: the loss falls on small objects among clutter."""

from typing import get_args

import keras
import pytest

from benchmarks.needle_images import make_needles, read_pictures
from models.choices import Combine, FusionType, Norm, Pooling
from models.fpn import build_classifier
from models.optimization import build_optimizer
from pipeline.config.network import ModelConfig, TrainConfig
from pipeline.dag.component_settings import classifier_config, train_settings

IMAGES = make_needles(read_pictures("digits", test=False), 16, 48, (16, 24), seed=1, halves=2)
STEPS = 40
OPTIONS = [
    *({"pooling": name} for name in get_args(Pooling)),
    *({"norm": name, "pooling": "max"} for name in get_args(Norm)),
    *({"fusion_type": name, "pooling": "log_sum_exp"} for name in get_args(FusionType) if name != "sum"),
    *({"combine": name, "pooling": "max"} for name in get_args(Combine) if name != "mean"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_loss_falls_within_a_few_steps(options):
    keras.utils.set_random_seed(1)
    model = build_classifier(
        classifier_config(ModelConfig(**{"backbone": "small_resnet10", "max_level": 3, "num_filters": 16, **options})),
        image_shape=IMAGES.images.shape[1:],
        num_classes=10,
        channel_mean=[float(IMAGES.images.mean())],
        channel_variance=[float(IMAGES.images.var())],
    )
    settings = train_settings(TrainConfig())
    optimizer = build_optimizer(settings.learning_rate, STEPS, 5, model.trainable_variables, settings)
    optimizer.build(model.trainable_variables)  # else the step is traced twice
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first, *_, last = (model.train_on_batch(IMAGES.images, IMAGES.labels) for _ in range(STEPS))
    assert last < 0.5 * first
