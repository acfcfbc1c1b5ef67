"""A function that is called in a process of its own, as if it were called here."""

import logging
import os
import signal

import pytest

from models import new_process

LOG = logging.getLogger("models.tests")


def tell(text):
    LOG.info("%s of %d", text, 2, extra={"progress": {"done": 1}})
    LOG.debug("unseen")


def fail(text):
    raise KeyError(text)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_log_records_of_models_arrive_as_they_were(caplog):
    with caplog.at_level(logging.INFO, logger="models"):
        new_process.call(tell, "one")
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.progress) == ("models.tests", "one of 2", {"done": 1})
    assert record.process != os.getpid()


def test_an_exception_is_raised_here():
    with pytest.raises(KeyError, match="bad"):
        new_process.call(fail, "bad")


def test_the_end_of_a_process_by_a_signal_is_told():
    with pytest.raises(new_process.ProcessEndedError, match="has ended with status -9"):
        new_process.call(kill_itself)
