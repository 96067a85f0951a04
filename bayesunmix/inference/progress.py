"""A progress bar on a terminal or in a notebook; silence in a pipe."""

from __future__ import annotations

import sys
import types

from tqdm.auto import tqdm


class Progress:
    """One bar for a whole fit, used as a context."""

    def __init__(self, shown: bool):
        in_notebook = "ipykernel" in sys.modules
        self._hidden = not (shown and (sys.stderr.isatty() or in_notebook))

    def __enter__(self) -> Progress:
        self._bar = tqdm(total=None, disable=self._hidden, leave=False, dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._bar.close()

    def note(self, text: str) -> None:
        """Say what goes on before the length of the work is known."""
        self._bar.set_description_str(text)

    def step(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` steps are made."""
        self._bar.total = total
        self._bar.n = done
        self._bar.set_description_str(text, refresh=False)
        self._bar.refresh()
