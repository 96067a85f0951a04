"""A progress bar on a terminal or in a notebook, silence in a pipe; and Ctrl-C that is never lost."""

from __future__ import annotations

import signal
import sys
import threading
import types

from tqdm.auto import tqdm


class Progress:
    """One bar for a whole fit, used as a context.

    A KeyboardInterrupt raised inside a callback of JAX is printed and dropped there. Here it is raised again when work
    is next reported.
    """

    def __init__(self, shown: bool):
        in_notebook = "ipykernel" in sys.modules
        self._hidden = not (shown and (sys.stderr.isatty() or in_notebook))

    def __enter__(self) -> Progress:
        self._interrupted = False
        self._before = None
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._bar = tqdm(total=None, disable=self._hidden, leave=False, dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        self._bar.close()

    def note(self, text: str) -> None:
        """Say what goes on before the length of the work is known."""
        self._raise_if_lost()
        self._bar.set_description_str(text)

    def step(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` steps are made."""
        self._raise_if_lost()
        self._bar.total = total
        self._bar.n = done
        self._bar.set_description_str(text, refresh=False)
        self._bar.refresh()

    def _interrupt(self, number: int, frame: types.FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _raise_if_lost(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
