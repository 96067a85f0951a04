"""The table of `bu.compare` as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .style import COLOURS, COLUMN, GREY, RC, canvas, dress, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def comparison(table: pd.DataFrame, *, ax: Axes | None = None) -> Figure | Axes:
    """How much worse each model predicts than the best one, with the standard error of that difference.

    Parameters
    ----------
    table : pandas.DataFrame
        What ``bu.compare`` returned: one row a model with ``elpd_diff`` and ``dse``, ``attrs["preferred"]``.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given. Bars reach two standard errors; the preferred model is filled.
    """
    import matplotlib
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(RC):
        figure = None
        if ax is None:
            figure, (ax,) = canvas(COLUMN, 16 + 6 * len(table))
        dress(ax)
        preferred = table.attrs.get("preferred")
        for row, (name, line) in enumerate(table.iterrows()):
            chosen = name == preferred
            ax.errorbar(
                -line["elpd_diff"],
                row,
                xerr=2 * line["dse"],
                fmt="o",
                markersize=4,
                color=COLOURS[0] if chosen else GREY,
                markerfacecolor=COLOURS[0] if chosen else "white",
                elinewidth=0.9,
            )
            ax.annotate(
                f"−{_short(line['elpd_diff'])} ± {_short(line['dse'])}" if line["elpd_diff"] else "best",
                (1, row),
                (3, 0),
                ("axes fraction", "data"),
                "offset points",
                va="center",
                fontsize=6.5,
            )
        ax.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
        labels = [plain(f"{name}\n(preferred)" if name == preferred else name) for name in table.index]
        ax.set_yticks(range(len(table)), labels)
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.5g}".replace("-", "−")))
        ax.set_xlabel("Δelpd (nats), bars ± 2 se")
        return ax if figure is None else figure


def _short(value: float) -> str:
    """Two decimals for small numbers, whole numbers with thousands marked for large ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
