"""The embedding is what the heads see on all levels, computed here again with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from models.embedding import find_pooling, normalize
from models.fpn import build_classifier
from models.gradcam import split
from pipeline.config.network import ModelConfig
from pipeline.dag.component_settings import classifier_config

POOLINGS = {
    "average": lambda x: x.mean(axis=(1, 2)),
    "max": lambda x: x.max(axis=(1, 2)),
    "average_max": lambda x: np.concatenate([np.maximum(x, 0).mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=-1),
    "generalized_mean": lambda x: (np.maximum(x, 1e-6) ** 3).mean(axis=(1, 2)) ** (1 / 3),
    "attention": lambda x: x.mean(axis=(1, 2)),  # at the start, all positions have the same weight
    "log_sum_exp": lambda x: x.mean(axis=(1, 2)),
}


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        *(({"pooling": pooling}, 48 if pooling == "average_max" else 24) for pooling in POOLINGS),
        ({"pooling": "average", "shared_head": True, "combine": "concat"}, 24),
        ({"pooling": "generalized_mean", "fusion_type": "none"}, 128),
    ],
)
def test_the_embedding_is_what_the_heads_see_on_all_levels(options, channels):
    network = ModelConfig(backbone="small_resnet10", min_level=2, max_level=4, num_filters=8, **options)
    model = build_classifier(
        classifier_config(network), image_shape=(32, 24, 1), num_classes=3, channel_mean=[127.0], channel_variance=[5000.0]
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 24, 1), dtype=np.uint8)
    levels, trunk, _ = split(model)
    maps = trunk(images, training=False)
    found = normalize(find_pooling(model, levels)(maps)).numpy()
    expected = np.concatenate([POOLINGS[options["pooling"]](maps[level].numpy()) for level in levels], axis=-1)
    assert found.shape == (5, channels)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=-1, keepdims=True), atol=2e-5)


def test_the_exported_model_embeds_images_and_answers_them(exported):
    outputs = tf.saved_model.load(exported.path).signatures["embed"](tf.constant(exported.files))
    levels, trunk, _ = split(exported.classifier)
    maps = trunk(exported.pictures[..., np.newaxis], training=False)
    expected = normalize(find_pooling(exported.classifier, levels)(maps))
    np.testing.assert_allclose(outputs["embedding"], expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(outputs["probabilities"], exported.probabilities, atol=1e-6)
    assert outputs["label"].numpy().tolist() == [exported.names[best] for best in exported.probabilities.argmax(-1)]
