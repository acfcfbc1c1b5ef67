"""Which images are in which slice."""

import itertools

import numpy as np
import pandas as pd
import pytest

from evaluation.slicing import bucket_names, slice_images


def test_all_images_come_first_then_the_values_in_their_order():
    rows = pd.DataFrame({"meta/day": ["10", "9", "9", "monday"], "image/channels": [1, 3, 3, 1]})
    slices = slice_images(rows, [["meta/day"], ["meta/day", "image/channels"]], {}, False)
    assert [dict(key) for key in slices] == [
        {},
        {"meta/day": "9"},
        {"meta/day": "10"},
        {"meta/day": "monday"},
        {"image/channels": "1", "meta/day": "10"},
        {"image/channels": "1", "meta/day": "monday"},
        {"image/channels": "3", "meta/day": "9"},
    ]
    assert [images.tolist() for images in slices.values()] == [[0, 1, 2, 3], [1, 2], [0], [3], [0], [3], [1, 2]]


def test_an_image_of_several_labels_is_in_the_slice_of_each():
    rows = pd.DataFrame({"image/label": ["cat|dog", "dog", ""]})
    slices = slice_images(rows, [["image/label"]], {}, True)
    found = {dict(key).get("image/label"): images.tolist() for key, images in slices.items()}
    assert found == {None: [0, 1, 2], "(none)": [2], "cat": [0], "dog": [0, 1]}


def test_a_class_of_single_label_data_may_have_the_separator_in_its_name():
    rows = pd.DataFrame({"image/label": ["a|b", "a|", "|", "a|b"]})
    slices = slice_images(rows, [["image/label"]], {}, False)
    found = {dict(key).get("image/label"): images.tolist() for key, images in slices.items() if key}
    assert found == {"a|b": [0, 3], "a|": [1], "|": [2]}


def test_numbers_are_cut_at_their_quartiles():
    values = np.random.default_rng(0).normal(size=1001)
    slices = slice_images(pd.DataFrame({"image/mean": values}), [["image/mean"]], {}, False)
    parts = [values[images] for key, images in slices.items() if key]
    assert [len(part) for part in parts] == [250, 250, 250, 251]
    assert all(low.max() < high.min() for low, high in itertools.pairwise(parts))


def test_given_edges_belong_to_the_bucket_above():
    rows = pd.DataFrame({"image/height": [63, 64, 127, 128, 500]})
    slices = slice_images(rows, [["image/height"]], {"image/height": [64, 128]}, False)
    found = {dict(key).get("image/height"): images.tolist() for key, images in slices.items() if key}
    assert found == {"below 64": [0], "64 to 128": [1, 2], "128 and more": [3, 4]}
    assert list(found) == bucket_names([64, 128])


@pytest.mark.parametrize("values", [[0.5] * 20, [7] * 20])
def test_a_feature_that_is_always_the_same_is_one_slice(values):
    slices = slice_images(pd.DataFrame({"image/mean": values}), [["image/mean"]], {}, False)
    assert [len(images) for images in slices.values()] == [20, 20]
