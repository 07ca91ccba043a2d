"""What the zoo has: read from the documentation of its files, so that there is one place to keep right."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from dataclasses import dataclass

import pandas as pd

import em_ppl as em

__all__ = ["Catalogue", "available"]


@dataclass(frozen=True)
class Catalogue:
    """The models of the zoo; prints as a list.

    Attributes
    ----------
    table : DataFrame
        One row a model: ``about`` (in a line), ``task``, ``parameters`` and ``columns`` (of the data), ``paper``.
    """

    table: pd.DataFrame

    def __repr__(self) -> str:
        entries = []
        for name, row in self.table.iterrows():
            lines = [f"{row['about']}", f"parameters: {row['parameters']}; data: {row['columns']}", row["paper"]]
            text = "\n".join(textwrap.fill(line, 110, subsequent_indent="  ") for line in lines)
            entries.append(f"{name}\n{textwrap.indent(text, '    ')}")
        return "\n".join(entries)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.table.to_html()


def available() -> Catalogue:
    """List the models of the zoo.

    Returns
    -------
    Catalogue
        Prints name, what it is about, parameters, data and paper of each.

    Examples
    --------
    >>> from em_ppl import models
    >>> models.available().table.loc["rescorla_wagner", "paper"]
    'Daw (2011)'
    """
    rows = {}
    zoo = importlib.import_module(__package__)
    for name in zoo.__all__:
        if isinstance(model := getattr(zoo, name), em.SubjectModel):
            rows[name] = {
                **_read(importlib.import_module(f"{__package__}.{name}").__doc__),
                "parameters": ", ".join(model.parameters),
                "columns": ", ".join(model.columns),
            }
    columns = ["about", "task", "parameters", "columns", "paper"]
    return Catalogue(pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model"))


def _read(documentation: str | None) -> dict[str, str]:
    """Take a file's documentation apart: its first line, the paragraph on the task, and the first reference."""
    paragraphs = inspect.cleandoc(documentation or "").split("\n\n")
    task = next((p for p in paragraphs if p.startswith("Task")), "")
    reference = next(p for p in paragraphs if p.startswith("References")).split("\n", 2)[2]
    found = re.match(r"(?P<authors>.*?) \((?P<year>\d{4})\)", " ".join(reference.split()))
    names = re.findall(r"([^\s,&][^,&]*?), (?:[A-Z]\.[ -]?)+", found["authors"]) if found else []
    who = " & ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return {
        "about": paragraphs[0].replace("\n", " "),
        "task": " ".join(task.split()).removeprefix("Task: "),
        "paper": f"{who} ({found['year']})" if found else "",
    }
