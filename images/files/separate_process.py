"""Calls functions that may take very long in a process of its own, which ends when its time is up."""

import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Final, TypeVar

from images.files.pixels import RejectedImage
from images.files.structure.budget import SECONDS, too_costly
from images.reason import Reason

_SIZE: Final = struct.Struct("<Q")
_PROGRAM: Final = "import sys; sys.path[:] = {path!r}\nfrom images.files.separate_process import serve; serve()"
_Out = TypeVar("_Out")

_lock = threading.Lock()
_process: "subprocess.Popen[bytes] | None" = None  # shared by all threads; it takes half a second to start


def call_apart(function: Callable[..., _Out], *arguments: Any, seconds: float = SECONDS) -> _Out:
    """Calls a function of a module, and ends it when its time is up.

    Args:
      function: found by its module and name; that module should not import TensorFlow.
      arguments: what pickle takes.
      seconds: of processor time, at most.

    Returns:
      What the function returns.

    Raises:
      RejectedImage: as from the function, or the time is up, or the process has died.
    """
    global _process
    with _lock:
        if _process is None or _process.poll() is not None:
            command = [sys.executable, "-c", _PROGRAM.format(path=sys.path)]
            _process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert _process.stdin is not None
        assert _process.stdout is not None
        try:
            _write(_process.stdin, (function, arguments, seconds))
            answer = _read(_process.stdout)
        except (EOFError, BrokenPipeError):
            status = _process.wait()
            _process = None
            if status == -signal.SIGPROF:
                raise too_costly(f"it takes more than {seconds:g} s") from None
            raise RejectedImage(Reason("damaged", "the decoder does not survive it")) from None
        except BaseException:  # such as Ctrl-C: its answer would be taken for the next one's
            _process.kill()
            _process = None
            raise
    if isinstance(answer, RejectedImage):
        raise answer
    return answer


def serve() -> None:
    """Answers on standard output what is asked on standard input, until that ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            function, arguments, seconds = _read(source)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, whatever it does
        try:
            answer = function(*arguments)
        except RejectedImage as reason:
            answer = reason
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(sink, answer)


def _write(file: IO[bytes], content: Any) -> None:
    packed = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    file.write(_SIZE.pack(len(packed)) + packed)
    file.flush()


def _read(file: IO[bytes]) -> Any:
    head = file.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    packed = file.read(size)
    if len(packed) < size:
        raise EOFError
    return pickle.loads(packed)
