"""Calls a function in a process of its own, as if it were called here."""

import copy
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

_PATIENCE: Final = 30  # seconds in which a process must end after its answer


class ProcessEndedError(Exception):
    """The process has ended without an answer, such as by a signal."""


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function of a module in a new process, which has TensorFlow's state for itself, and waits for it.

    What the loggers of `models` get there, they get here. The process does not outlive this one.

    Raises:
      ProcessEndedError: see there.
      Exception: whatever the function raises.
    """
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(tell, function, arguments), daemon=True)
    process.start()
    tell.close()
    try:
        while isinstance(message := told.recv(), logging.LogRecord):
            logger = logging.getLogger(message.name)
            if logger.isEnabledFor(message.levelno):
                logger.handle(message)
        if message is None:
            process.join(_PATIENCE)  # others may wait for it to say goodbye
    except EOFError:
        process.join()
        raise ProcessEndedError(f"its process has ended with status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if message:
        raise message


class _Sender(logging.Handler):
    """Sends log records through a pipe."""

    def __init__(self, tell: Connection) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        sent = copy.copy(record)
        sent.msg, sent.args, sent.exc_info = record.getMessage(), None, None  # which may be of any types
        self._tell.send(sent)


def _answer(tell: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logger = logging.getLogger("models")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_Sender(tell))
    try:
        function(*arguments)
    except Exception as error:
        logging.exception("the process ends")
        tell.send(error)
    else:
        tell.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
