"""What all pictures share."""

from __future__ import annotations

from io import BytesIO
from typing import Any

EM, NUTS, ALONE, GROUP = "#30618c", "#d1702a", "#8c8c8c", "#d1702a"


def tidy(axes: Any) -> None:
    """Take away the box around a panel."""
    axes.spines[["top", "right"]].set_visible(False)


def legend_above(figure: Any) -> None:
    """One legend above all panels, without repeats."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=4, frameon=False)


def shown(figure: Any) -> Any:
    """Let a figure show itself as the result of a notebook's cell, whether pyplot has been imported or not."""

    def png() -> bytes:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        return buffer.getvalue()

    figure._repr_png_ = png
    return figure
