"""What stays when training is killed."""

import numpy as np
import pytest
import tensorflow as tf

from models import checkpoints
from models.checkpoints import Checkpoint, checkpoint_folder, load_checkpoint, remove_checkpoint, save_checkpoint


def checkpoint(epochs):
    return Checkpoint(
        phase=1,
        phase_start=1,
        history=[{"epoch": epoch + 1, "loss": 0.5, "val_loss": float("nan")} for epoch in range(epochs)],
        best_epoch=epochs - 1,
        model=[np.arange(12.0, dtype=np.float32).reshape(3, 4) + index for index in range(11)],
        optimizer=[np.array(epochs, np.int64)],
    )


def same(first, second):
    np.testing.assert_equal(vars(first), vars(second))
    assert [array.dtype for array in first.model] == [array.dtype for array in second.model]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    folder = str(tmp_path / "root" / "key")
    assert load_checkpoint(folder) is None
    for epochs in (1, 2):
        save_checkpoint(folder, checkpoint(epochs))
        same(load_checkpoint(folder), checkpoint(epochs))
    remove_checkpoint(folder)
    assert load_checkpoint(folder) is None
    remove_checkpoint(folder)


@pytest.mark.parametrize("step", ["copy", "rename"])
def test_a_save_that_is_cut_short_leaves_the_checkpoint_before(tmp_path, monkeypatch, step):
    save_checkpoint(str(tmp_path), checkpoint(1))

    def cut_short(source, target, overwrite=False):
        if step == "copy":
            with open(target, "wb") as file:
                file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.io.gfile, step, cut_short)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(str(tmp_path), checkpoint(2))
    monkeypatch.undo()
    same(load_checkpoint(str(tmp_path)), checkpoint(1))


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-200], lambda content: flipped(content)])
def test_a_damaged_checkpoint_counts_as_none(tmp_path, damage):
    save_checkpoint(str(tmp_path), checkpoint(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert load_checkpoint(str(tmp_path)) is None


def flipped(content):
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]


def test_object_stores_are_reached_through_gfile():
    folder = checkpoint_folder("ram://checkpoints", data="x")
    save_checkpoint(folder, checkpoint(2))
    same(checkpoints.load_checkpoint(folder), checkpoint(2))
    remove_checkpoint(folder)
    assert load_checkpoint(folder) is None


def test_other_data_code_or_configuration_has_another_folder():
    keys = [{"data": ["a"], "config": {"x": 1}}, {"data": ["b"], "config": {"x": 1}}, {"data": ["a"], "config": {"x": 2}}]
    assert len({checkpoint_folder("root", **key) for key in keys}) == 3
    assert checkpoint_folder("root", **keys[0]) == checkpoint_folder("root", **keys[0])
