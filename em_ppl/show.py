"""How results show themselves: a headline, tables, and lines of advice."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import pandas as pd

__all__ = ["as_html", "as_text"]


def as_text(headline: str, tables: Iterable[pd.DataFrame], advice: Iterable[str] = (), *, digits: str) -> str:
    """For a terminal; `digits` is how numbers are formatted, such as ``".3f"``."""
    shown = [table.to_string(float_format=f"{{:{digits}}}".format, na_rep="") for table in tables]
    return "\n\n".join([headline, *shown]) + "".join(f"\n! {line}" for line in advice)


def as_html(headline: str, tables: Iterable[pd.DataFrame], advice: Iterable[str] = (), *, digits: str) -> str:
    """For a notebook."""
    shown = [table.to_html(float_format=f"{{:{digits}}}".format, na_rep="", border=0) for table in tables]
    lines = "".join(f"<li>{escape(line)}</li>" for line in advice)
    return f"<p><b>{escape(headline)}</b></p>{''.join(shown)}" + (f"<ul>{lines}</ul>" if lines else "")
