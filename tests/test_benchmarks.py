"""The counts in the table of backbones."""

import keras

from benchmarks.backbones import multiply_adds


def test_multiply_adds_are_those_of_every_kernel_at_every_position():
    inner_input = keras.Input((8, 6, 4))
    inner = keras.Model(inner_input, keras.layers.SeparableConv2D(6, 3, padding="same")(inner_input))
    image = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(4, 5, strides=2, padding="same")(image)
    x = keras.layers.Conv2D(4, 3, groups=2, padding="same")(x)
    x = inner(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = keras.layers.Dense(5)(keras.layers.BatchNormalization()(x))
    expected = (
        8 * 6 * 4 * (5 * 5 * 3)
        + 8 * 6 * 4 * (3 * 3 * 2)
        + 8 * 6 * 4 * (3 * 3)
        + 8 * 6 * 6 * 4
        + 6 * 4 * 12 * (3 * 3)
        + 6 * 4 * 5 * 12
    )
    model = keras.Model(image, x)
    assert multiply_adds(model) == expected
    assert multiply_adds(model) == expected  # counting leaves the model as it was


def test_resnet50_has_its_published_multiply_adds():
    model = keras.applications.ResNet50(weights=None)
    assert abs(multiply_adds(model) / 3.8e9 - 1) < 0.02  # arXiv:1512.03385, table 1
