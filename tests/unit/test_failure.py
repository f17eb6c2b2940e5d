"""What went wrong in a run is recorded without a value of the data set."""

from __future__ import annotations

import errno
import logging

import pytest

from m3node.errors import InferenceError, InputRejected, ResultError
from m3node.jobs.answer.failure import failure, transient
from m3node.jobs.answer.record import RunRecord
from m3node.rejection import Reason


def test_an_error_raised_on_purpose_keeps_its_words() -> None:
    rejection = failure(InputRejected(Reason.UNDECODABLE, "instance 1.2.3 is truncated"), "1.2")
    assert rejection.reason is Reason.UNDECODABLE
    assert rejection.message == "instance 1.2.3 is truncated"
    assert failure(InferenceError("no memory"), "1.2").message == "no memory"


def test_an_unforeseen_error_is_named_by_type_and_place_and_never_quotes_a_data_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        try:
            RunRecord("Doe^Jane")  # type: ignore[call-arg]
        except TypeError as error:
            error.args = ("Doe^Jane",)
            rejection = failure(error, "1.2.3")
    assert rejection.reason is Reason.FAILED
    assert "TypeError" in rejection.message
    assert "1.2.3" in rejection.message
    assert "Doe" not in rejection.message + caplog.text


def test_the_place_of_an_unforeseen_error_is_in_our_code() -> None:
    with pytest.raises(AttributeError) as caught:
        failure(None, "1.2")  # type: ignore[arg-type]
    assert "m3node/jobs/answer/failure.py:" in failure(caught.value, "1.2").message


def test_a_full_disk_is_transient_also_behind_our_own_error() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    ours = ResultError("cannot write")
    ours.__cause__ = full
    assert transient(full) is full
    assert transient(ours) is full
    assert transient(ResultError("cannot encode")) is None
    assert transient(FileNotFoundError(errno.ENOENT, "gone")) is None


def test_memory_that_ran_out_and_a_file_of_root_are_waited_for() -> None:
    ours = InferenceError("cannot look")
    ours.__cause__ = MemoryError()
    trouble = transient(ours)
    assert trouble is not None
    assert trouble.errno == errno.ENOMEM
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert transient(denied) is denied
