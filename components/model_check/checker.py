"""Sends an exported model the requests that a server would send. Runs in its own process, because the model may crash it.

Needs only TensorFlow and NumPy: as in a server, the project's packages can't be imported in this process. The checker measures
and compares; the parent process judges. Each finding is written at once, so that the parent knows how far the checker got.
"""

import importlib
import importlib.abc
import json
import math
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

# {"model", "encoded", "separator", "names", "classes", "multi_label", "abstains", "timed_seconds"}
REQUEST_FILE: Final = "request.json"
EXAMPLES_FILE: Final = "examples.tfrecord"
PROBABILITIES_FILE: Final = "probabilities.npy"  # float32 [images, classes], the expected answers
# Each line has one of these: {"step"}, {"failure"}, {"measured"}, {"difference"}, {"bad"}, {"done"}.
FINDINGS_FILE: Final = "findings.jsonl"

GO: Final = "go\n"

BATCHES: Final = (1, 7, 64)
_MOST_PIXELS: Final = 2**29  # of a batch of several images, as the network sees them; larger ones are left out
_INPUTS: Final = {"serving_default": "image_bytes", "predict_examples": "examples"}  # by signature
_PROJECT: Final = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")
_TIMED_REQUESTS: Final = {1: 200, 64: 5}  # batch size -> number of requests to time, within the seconds of the request
_HUGE: Final = 60_000  # pixels, height and width


class _ProjectHider(importlib.abc.MetaPathFinder):
    """Makes imports of the project's packages fail, in case they are installed beside TensorFlow."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] in _PROJECT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


class _Checker:
    def __init__(self, folder: str, start_seconds: float) -> None:
        self._start_seconds = start_seconds
        with open(os.path.join(folder, REQUEST_FILE), encoding="utf-8") as file:
            self._request = json.load(file)
        self._findings = open(os.path.join(folder, FINDINGS_FILE), "a", encoding="utf-8")  # noqa: SIM115 to the very end
        records = list(tf.data.TFRecordDataset(os.path.join(folder, EXAMPLES_FILE)).as_numpy_iterator())
        encoded = self._request["encoded"]
        files = [tf.train.Example.FromString(item).features.feature[encoded].bytes_list.value[0] for item in records]
        self._values = {"serving_default": files, "predict_examples": records}
        self._expected = np.load(os.path.join(folder, PROBABILITIES_FILE))
        self._signatures: Any = {}

    def run(self) -> None:
        """Runs all checks in order."""
        self._report(measured={"start_seconds": self._start_seconds})
        self._step("loading the model")
        started = time.perf_counter()
        try:
            self._signatures = tf.saved_model.load(self._request["model"]).signatures
        except Exception as error:
            self._fail(f"the model can't be loaded: {_short(error)}")
            return
        self._report(measured={"load_seconds": time.perf_counter() - started})
        started = time.perf_counter()
        for signature in _INPUTS:
            if signature not in self._signatures:
                self._fail(f"the model has no signature {signature}; it has {', '.join(sorted(self._signatures)) or 'none'}")
            elif self._ask_all(signature, started):
                self._ask_bad(signature)
        self._report(measured={"memory_mb": _peak_memory()})
        self._ask_session()
        self._step("looking for the project's modules")
        for name in _PROJECT:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                continue
            self._fail(f"the process has found {name}, which a server does not have")

    def finish(self) -> None:
        self._report(done=True)

    def _report(self, **finding: Any) -> None:
        self._findings.write(json.dumps(finding) + "\n")
        self._findings.flush()

    def _step(self, name: str) -> None:
        self._report(step=name)

    def _fail(self, reason: str) -> None:
        self._report(failure=reason)

    def _ask(self, signature: str, values: Sequence[bytes]) -> dict[str, np.ndarray]:
        answers = self._signatures[signature](**{_INPUTS[signature]: tf.constant(values, tf.string, [len(values)])})
        return {name: value.numpy() for name, value in answers.items()}

    def _ask_all(self, signature: str, started: float) -> bool:
        """Sends all images in batches of each size, and times some of the requests; returns whether all were answered."""
        values, images = self._values[signature], len(self._expected)
        for size in BATCHES:
            if size > 1 and size * self._pixels() > _MOST_PIXELS:
                continue
            where = f"{signature}, batch of {size}"
            self._step(where)
            seconds: list[float] = []
            requests = math.ceil(images / size)
            timed = _TIMED_REQUESTS.get(size, 0) if signature == "serving_default" else 0
            begun, number = time.perf_counter(), 0
            # The first request of each size is not timed, because TensorFlow prepares its graph in it.
            # After the seconds for timing, only those are sent that are left to cover all images.
            while number <= requests or (number <= timed and time.perf_counter() - begun < self._request["timed_seconds"]):
                rows = np.arange(number * size, (number + 1) * size) % images
                batch = [values[row] for row in rows]
                before = time.perf_counter()
                try:
                    answers = self._ask(signature, batch)
                except Exception as error:
                    self._fail(f"{where}: {self._request['names'][rows[0]]}: refused: {_short(error)}")
                    return False
                if number:
                    seconds.append(time.perf_counter() - before)
                elif (signature, size) == ("serving_default", 1):
                    self._report(measured={"first_answer_seconds": time.perf_counter() - started})
                if number <= requests and not self._compare(where, answers, rows):
                    return False
                number += 1
            if timed and size == 1:
                p50, p99 = np.percentile(seconds, [50, 99]) * 1000
                self._report(measured={"latency_p50_ms": float(p50), "latency_p99_ms": float(p99), "timed": len(seconds)})
            elif timed:
                self._report(measured={"image_ms": float(np.median(seconds)) * 1000 / size})
        return True

    def _compare(self, where: str, answers: dict[str, np.ndarray], rows: np.ndarray) -> bool:
        """Reports the largest difference from the expected probabilities; reports a failure and returns False for a bad answer.

        An answer is bad if it has a wrong shape, values that are not finite, or wrong labels.
        """
        expected, names, classes = self._expected[rows], self._request["names"], self._request["classes"]
        found = answers.get("probabilities")
        if found is None or found.shape != expected.shape:
            shape = "none" if found is None else f"of shape {list(found.shape)}"
            self._fail(f"{where}: probabilities are {shape}, must be of shape {list(expected.shape)}")
            return False
        if not np.isfinite(found).all():
            row = rows[np.flatnonzero(~np.isfinite(found).all(axis=-1))[0]]
            self._fail(f"{where}: {names[row]}: probabilities are not finite")
            return False
        differences = np.abs(found - expected).max(axis=-1)
        worst = int(differences.argmax())
        self._report(difference=float(differences[worst]), where=where, image=names[rows[worst]])
        if bare := [name for name, value in answers.items() if value.shape[:1] != (len(rows),)]:
            self._fail(f"{where}: {', '.join(bare)}: no row per image, which TensorFlow Serving's row format refuses")
            return False
        if "labels" in answers and any([item.decode() for item in row] != classes for row in answers["labels"]):
            self._fail(f"{where}: labels are other ones, or in another order, than the Evaluator's")
            return False
        if "label_set" in answers and (fault := _fault_of_sets(answers, expected.shape)):
            self._fail(f"{where}: {fault}")
            return False
        if "unusual" in answers and not _is_percentile(answers["unusual"]):
            self._fail(f"{where}: unusual is not a number from 0 to 100 for each image")
            return False
        if "label" in answers:
            answered = [item.decode() for item in answers["label"]]
            for row, label, wanted in zip(rows, answered, self._labels(found), strict=True):
                if label not in (wanted, *self._request["abstains"]):
                    self._fail(f"{where}: {names[row]}: label is {label!r}, but the probabilities say {wanted!r}")
                    return False
        return True

    def _labels(self, probabilities: np.ndarray) -> list[str]:
        classes = self._request["classes"]
        if not self._request["multi_label"]:
            return [classes[number] for number in probabilities.argmax(axis=-1)]
        likely = [sorted(np.array(classes)[row >= 0.5].tolist()) for row in probabilities]
        return [self._request["separator"].join(names) for names in likely]

    def _pixels(self) -> int:
        """Height times width of what the network sees; 0 if the model does not tell."""
        decode = self._signatures.get("decode")
        return math.prod(decode.structured_outputs["images"].shape[1:3]) if decode else 0

    def _ask_bad(self, signature: str) -> None:
        """Sends bad requests; after each, a good image must be answered as before."""
        for what, batch in self._bad_batches(signature).items():
            where = f"{signature}, {what}"
            self._step(where)
            try:
                answers = self._ask(signature, batch)
            except Exception as error:
                self._report(bad=where, outcome=f"refused ({type(error).__name__})")
            else:
                self._report(bad=where, outcome="answered")
                found = answers.get("probabilities")
                shape = [len(batch), len(self._request["classes"])]
                if found is None or list(found.shape) != shape or not np.isfinite(found).all():
                    self._fail(f"{where}: the answer has no probabilities of shape {shape}")
            self._step(f"{signature}, an image after {what}")
            try:
                answers = self._ask(signature, self._values[signature][:1])
            except Exception as error:
                self._fail(f"{signature}: refuses an image after {what}: {_short(error)}")
                return
            if not self._compare(f"{signature}, after {what}", answers, np.array([0])):
                return

    def _bad_batches(self, signature: str) -> dict[str, list[bytes]]:
        good = self._values[signature]
        if signature == "predict_examples":
            return {"no tf.Example": [b"no tf.Example"], "a tf.Example without an image": [b""], "an empty batch": []}
        cut = good[0][: len(good[0]) // 2]
        return {
            "a file that is cut short": [cut],
            "a corrupt file among others": [good[0], cut, good[-1]],
            "a file that is no image": [b"no image"],
            "an empty file": [b""],
            "the header of a huge image": [_huge_png()],
            "an empty batch": [],
        }

    def _ask_session(self) -> None:
        """Loads the model as TensorFlow Serving does, whose loader finds less than Python's, and sends a request."""
        where = "serving_default in a session"
        self._step(where)
        rows = np.arange(BATCHES[1]) % len(self._expected)
        values = [self._values["serving_default"][row] for row in rows]
        try:
            # What the optimizer makes of the graph has been seen above; here it would take two seconds again.
            config = tf.compat.v1.ConfigProto()
            config.graph_options.rewrite_options.disable_meta_optimizer = True
            with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
                loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], self._request["model"])
                signature = loaded.signature_def["serving_default"]
                names = {name: info.name for name, info in signature.outputs.items()}
                answers = session.run(names, {signature.inputs[_INPUTS["serving_default"]].name: values})
        except Exception as error:
            self._fail(f"{where}, as TensorFlow Serving loads a model: {_short(error)}")
            return
        self._compare(where, answers, rows)


def _fault_of_sets(answers: dict[str, np.ndarray], shape: tuple[int, ...]) -> str:
    """What is wrong with the sets of classes; "" if nothing is."""
    sets = answers["label_set"]
    if sets.dtype != bool or sets.shape != shape:
        return f"label_set is {sets.dtype} of shape {list(sets.shape)}, must be bool of shape {list(shape)}"
    if "set_size" not in answers or not np.array_equal(answers["set_size"], sets.sum(axis=-1)):
        return "set_size is not the number of classes in label_set"
    return ""


def _is_percentile(unusual: np.ndarray) -> bool:
    return unusual.ndim == 1 and bool(((unusual >= 0) & (unusual <= 100.001)).all())  # which NaN is not


def _huge_png() -> bytes:
    """A PNG file whose header has more pixels than the file contains and than fit into memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _HUGE, _HUGE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _peak_memory() -> float | None:
    """Peak memory of this process in megabytes (10^6 bytes); None if the system does not provide it."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024 / 1e6


def _short(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def main(folder: str, started: float) -> None:
    """Checks the model that the request in the folder names, and writes the findings into the folder.

    Args:
      folder: has the request once `GO` is read from standard input. If standard input ends without it, nothing is done.
      started: start time of the process, in seconds since 1970.
    """
    start_seconds = time.time() - started
    if sys.stdin.readline() != GO:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.meta_path.insert(0, _ProjectHider())
    checker = _Checker(folder, start_seconds)
    checker.run()
    checker.finish()
    os._exit(0)  # everything is written, and shutting TensorFlow down would take longer than loading the model


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
