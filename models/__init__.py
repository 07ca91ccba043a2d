"""The zoo: one flat file per model, with its likelihood of one subject, a simulator and a citation.

A model is fitted by ``em.fit(rescorla_wagner, data)``. The file of the same name tells which columns the data need,
and holds the simulator: ``from em_ppl.models.rescorla_wagner import simulate``. Every simulator takes a table of
parameters in natural space, one row per subject, such as ``fit.subjects["natural"].to_pandas()``.
"""

from .linear_regression import linear_regression
from .logistic_regression import logistic_regression
from .rescorla_wagner import rescorla_wagner
from .rescorla_wagner_two_rates import rescorla_wagner_two_rates
from .risky_choice import risky_choice

__all__ = [
    "linear_regression",
    "logistic_regression",
    "rescorla_wagner",
    "rescorla_wagner_two_rates",
    "risky_choice",
]
