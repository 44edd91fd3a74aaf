"""How a tool ends: what is a user's error, what is a mistake of the program, and what is said."""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import pytest
import torch

from symerge_dense.commands.cli import end_like_ctrl_c, run_tool

TOO_MUCH = 1 << 50


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_tool(interrupted) == 130 and "--resume" in capsys.readouterr().err
    assert run_tool(interrupted, "nothing was written") == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_tool(broken)


@pytest.mark.parametrize("allocate", [torch.empty, np.empty])
def test_too_little_memory_is_no_traceback(allocate: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(allocate)
    assert run_tool(lambda: allocate(TOO_MUCH)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: there is not enough memory (") and "smaller" in text and len(text.splitlines()) == 1


def test_python_s_own_lack_of_memory_says_nothing_itself(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise MemoryError

    assert run_tool(fail) == 2 and "not enough memory (MemoryError)" in capsys.readouterr().err


def test_a_signal_that_turns_into_another_error_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        end_like_ctrl_c()
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_tool(work, "nothing was written") == 130
        assert capsys.readouterr().err == "interrupted; nothing was written\n"
        end_like_ctrl_c()
        assert run_tool(lambda: int("x")) == 2  # another tool in the same process has a record of its own
    finally:
        signal.signal(signal.SIGTERM, before)


class Last:
    """Hears the signal while it is destroyed, where Python drops what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_comes_in_a_destructor_is_not_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        end_like_ctrl_c()
        Last()
        time.sleep(9)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    began = time.monotonic()
    try:
        assert run_tool(work, "nothing was written") == 130 and time.monotonic() - began < 5
        end_like_ctrl_c()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_too_little_memory_of_an_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    def allocate() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert run_tool(allocate) == 2 and "Tried to allocate 2.00 GiB" in capsys.readouterr().err
