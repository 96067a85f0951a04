"""The bar of a fit: on a terminal only, with what is going on in words."""

from __future__ import annotations

import contextlib
import io
import os
import signal

import pytest

from bayesunmix.inference.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, wanted: bool = True) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    with Progress(wanted) as bar:
        bar.note("looking for the mode")
        bar.step(30, 200, "ELBO -1234.5")
    return stream.getvalue()


def test_a_terminal_gets_a_bar_with_the_elbo(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _shown(_Terminal(), monkeypatch)
    assert "looking for the mode" in shown
    assert "ELBO -1234.5:" in shown
    assert "30/200" in shown


def test_a_pipe_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown(io.StringIO(), monkeypatch) == ""


def test_none_is_shown_when_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown(_Terminal(), monkeypatch, wanted=False) == ""


def test_an_interrupt_that_was_swallowed_comes_again() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of a test run ignore it
    try:
        with Progress(False) as bar:
            with contextlib.suppress(KeyboardInterrupt):  # as a callback of JAX does
                os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                bar.note("looking for the mode")
            bar.note("and only once")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
