"""Measures memory and time of large images, seen in tiles and whole; prints a table.

    .venv/bin/python -m benchmarks.tiles

Each figure is of a process of its own: the exported network answers one grey image of 8,192 px, and two images of 2,048 px
are a training step. The network is `small_resnet10` with a pyramid of 64 filters. Memory is the highest resident set in MiB,
beside that of the same process before the measurement. The third answer, and the third step, are timed.
"""

import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.measurement import peak_memory

_ANSWER_SIDE, _STEP_SIDE, _STEP_BATCH = 8192, 2048, 2
_TILES = (0, 128, 256)  # 0: whole


def _classifier(side: int, tile: int) -> Any:
    from models.fpn import build_classifier
    from models.tiles import tile_classifier
    from pipeline.config.network import ModelConfig
    from pipeline.dag.component_settings import classifier_config

    seen = tile or side
    network = build_classifier(
        classifier_config(ModelConfig(backbone="small_resnet10", min_level=2, max_level=4, num_filters=64, norm="batch")),
        image_shape=(seen, seen, 1),
        num_classes=10,
        channel_mean=[127.0],
        channel_variance=[5000.0],
    )
    return tile_classifier(network, (side, side, 1), overlap=0) if tile else network


def _answer(tile: int) -> dict[str, float]:
    import keras
    import tensorflow as tf

    images = tf.constant(np.random.default_rng(0).integers(0, 256, (1, _ANSWER_SIDE, _ANSWER_SIDE, 1), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        archive, model = keras.export.ExportArchive(), _classifier(_ANSWER_SIDE, tile)
        archive.track(model)
        specification = [tf.TensorSpec((None, *images.shape[1:]), tf.uint8)]
        archive.add_endpoint("serve", lambda pixels: model(pixels, training=False), input_signature=specification)
        archive.write_out(folder, verbose=False)
        loaded = tf.saved_model.load(folder)
        return _measure(lambda: np.isfinite(loaded.serve(images).numpy()).all())


def _step(tile: int) -> dict[str, float]:
    model = _classifier(_STEP_SIDE, tile)
    model.compile("adam", "mean_squared_error")
    images = np.random.default_rng(0).integers(0, 256, (_STEP_BATCH, _STEP_SIDE, _STEP_SIDE, 1), dtype=np.uint8)
    labels = np.eye(10, dtype=np.float32)[:_STEP_BATCH]
    return _measure(lambda: np.isfinite(model.train_on_batch(images, labels)))


def _measure(call: Any) -> dict[str, float]:
    before = peak_memory() / 2**20
    for _ in range(2):
        assert call()
    start = time.perf_counter()
    call()
    return {"before": before, "peak": peak_memory() / 2**20, "seconds": time.perf_counter() - start}


def main() -> None:
    """Prints a row for each process; one that the system ends has no figures."""
    if len(sys.argv) > 1:
        print(json.dumps({"answer": _answer, "step": _step}[sys.argv[1]](int(sys.argv[2]))))
        return
    print("| what | tiles | before, MiB | peak, MiB | seconds |\n| --- | --- | --- | --- | --- |")
    for what in ("answer", "step"):
        for tile in _TILES:
            command = [sys.executable, "-m", "benchmarks.tiles", what, str(tile)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
            figures = " | ".join(
                f"{found[key]:.{digits}f}" for key, digits in (("before", 0), ("peak", 0), ("seconds", 1)) if found
            )
            print(f"| {what} | {tile or 'whole'} | {figures or f'ended with status {done.returncode}'} |")


if __name__ == "__main__":
    main()
