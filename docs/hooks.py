"""What MkDocs does not do by itself: pages of the zoo, made of its documentation; the changelog; formulas as MathML."""

from __future__ import annotations

import html
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from em_ppl import SubjectModel, models

ROOT = Path(__file__).parents[1]
FAMILIES = {
    "Learning from rewards": """rescorla_wagner rescorla_wagner_two_rates rescorla_wagner_forgetting
        rescorla_wagner_perseveration pearce_hall reversal_counterfactual actor_critic go_nogo_pavlovian kalman_bandit
        hgf_binary""",
    "Planning and habit": "two_step two_step_model_based two_step_model_free two_step_deterministic",
    "Waiting": """hyperbolic_discounting exponential_discounting hyperboloid_discounting magnitude_discounting
        quasi_hyperbolic_discounting""",
    "Risk, effort, fairness": "prospect_theory risky_choice risk_ambiguity effort_discounting ultimatum",
    "Perception and confidence": """signal_detection signal_detection_unequal meta_d psychometric bayesian_observer
        drift_diffusion""",
    "Regressions": "linear_regression logistic_regression poisson_regression",
}
LEGEND = """Above: simulated people whose parameter is <span class="low">low</span> or <span class="high">high</span>
(1.5 SDs of the group below and above its mean; the numbers are in natural space), all else at the group's mean. Below:
true and estimated parameters of 60 simulated people, in Gaussian space. (`python docs/make_gallery.py {name}`; task and
group are those of the tests, in `tests/zoo`.)"""


def on_config(config: MkDocsConfig) -> None:
    """Put each model under the zoo."""
    zoo = next(entry["The zoo"] for entry in config.nav or [] if "The zoo" in entry)
    zoo += [{family: [{name: f"zoo/{name}.md"} for name in names.split()]} for family, names in FAMILIES.items()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    pages = {"changelog.md": (ROOT / "CHANGELOG.md").read_text(), "zoo/index.md": gallery()}
    for name in models.available().table.index:
        pages[f"zoo/{name}.md"] = model_page(name)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def gallery() -> str:
    """All models by family, each with its picture."""
    table = models.available().table
    listed = [name for names in FAMILIES.values() for name in names.split()]
    if sorted(listed) != sorted(table.index):
        raise ValueError(f"docs/hooks.py: FAMILIES lacks or repeats {set(listed) ^ set(table.index) or 'a model'}.")
    lines = [
        "# The zoo",
        f"{len(table)} models, ready to fit: `from em_ppl.models import rescorla_wagner`, then "
        "`em.fit(rescorla_wagner, data)`. The page of each says which columns it needs and what its parameters mean, "
        "and shows by simulation what they do and how well they are recovered. `print(em_ppl.models.available())` "
        "prints this list. How to add one: [Contributing](../contributing.md).",
    ]
    for family, names in FAMILIES.items():
        lines += [f"## {family}", '<div class="gallery" markdown>']
        for name in names.split():
            row = table.loc[name]
            lines += [
                '<div class="card" markdown>',
                f"[![What the parameters of {name} do]({name}.png){{ loading=lazy }}]({name}.md)",
                f"**[{name}]({name}.md)**<br>{html.escape(row['about'])}",
                f"`{row['parameters'].replace(', ', '` `')}`",
                "</div>",
            ]
        lines += ["</div>"]
    return "\n\n".join(lines)


def model_page(name: str) -> str:
    """One model: its documentation, how to fit it, and its picture."""
    file, model = importlib.import_module(f"em_ppl.models.{name}"), getattr(models, name)
    assert isinstance(model, SubjectModel)
    title, rest = inspect.cleandoc(file.__doc__ or "").split("\n\n", 1)
    body, references = rest.split("References\n----------\n")
    rows = [
        f"| `{p}` | {_range(parameter)} | {parameter.link} | {parameter.start:g} |"
        for p, parameter in model.parameters.items()
    ]
    return "\n\n".join(
        [
            f"# {name}",
            f"**{_prose(title)}**",
            f"![What the parameters of {name} do, and how well they are recovered]({name}.png)",
            LEGEND.format(name=name),
            _prose(body),
            "## In code",
            f"```python\nimport em_ppl as em\nfrom em_ppl.models.{name} import {name}, task\n\nfit = em.fit({name}, "
            f"data)  # columns: {', '.join(model.columns)}\n```",
            "\n".join(["| parameter | natural space | link | search starts at |", "|---|---|---|---|", *rows]),
            f"::: em_ppl.models.{name}.task\n    options:\n      show_root_heading: true\n      heading_level: 3",
            f'??? note "Its likelihood"\n\n    ```python\n{_indent(inspect.getsource(model.function))}\n    ```',
            "## References",
            _prose(references),
        ]
    )


def _range(parameter: Any) -> str:
    if parameter.kind == "Real":
        return "any"
    return "above 0" if parameter.kind == "Positive" else f"{parameter.low:g} to {parameter.high:g}"


def _prose(text: str) -> str:
    """Documentation as Markdown: code in single backticks, addresses as links, no formatting by accident."""
    text = re.sub(r"``(.*?)``", r"`\1`", text)
    text = re.sub(r"(?<![`\w])_(?=\w)|(?<=\w)\*(?=\w)", lambda match: "\\" + match.group(), text)
    return re.sub(r"(https?://\S+)", r"<\1>", text)


def _indent(source: str) -> str:
    return "\n".join("    " + line for line in inspect.cleandoc(source).splitlines())


def on_page_content(content: str, page: Page, **_: Any) -> str:
    r"""Turn formulas into MathML: \(...\) and \[...\], as arithmatex leaves them, and dollars in notebooks."""
    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', _inline, content, flags=re.DOTALL)
    content = re.sub(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', _block, content, flags=re.DOTALL)
    if not page.file.src_path.endswith(".ipynb"):
        return content
    content = re.sub(r"<script[^>]*(?:mathjax|MathJax)[^>]*>.*?</script>", "", content, flags=re.DOTALL)
    parts = re.split(r"(<(pre|code|script|style|table)\b.*?</\2>)", content, flags=re.DOTALL)
    for k in range(0, len(parts), 3):  # what is in between; then what was split at, whole, and its name
        parts[k] = re.sub(r"\$\$(.+?)\$\$", _block, parts[k], flags=re.DOTALL)
        parts[k] = re.sub(r"\$([^$\n]+)\$", _inline, parts[k])
    return "".join(part for k, part in enumerate(parts) if k % 3 < 2)


def _inline(formula: re.Match[str]) -> str:
    return _mathml(formula.group(1), "inline")


def _block(formula: re.Match[str]) -> str:
    return f'<div class="formula">{_mathml(formula.group(1), "block")}</div>'


def _mathml(latex: str, display: str) -> str:
    """Convert; with the space after a function's name, and the relation sign, that browsers leave to the writer."""
    mathml = convert(html.unescape(latex), display=display)
    mathml = re.sub(r"<mi>(log|exp)</mi>", r'<mrow><mi>\1</mi><mspace width="0.17em"/></mrow>', mathml)
    return mathml.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
