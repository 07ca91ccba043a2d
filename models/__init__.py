"""The zoo: one flat file per model, with the likelihood of one subject, its task, and a citation.

A model is fitted by ``em.fit(rescorla_wagner, data)``. The file of the same name tells which columns the data need, and
makes the experiment: ``from em_ppl.models.rescorla_wagner import task``, for `em_ppl.simulate` and `em_ppl.recover`.
``available()`` lists them all.
"""

from .bayesian_observer import bayesian_observer
from .catalogue import available
from .linear_regression import linear_regression
from .logistic_regression import logistic_regression
from .meta_d import meta_d
from .poisson_regression import poisson_regression
from .psychometric import psychometric
from .rescorla_wagner import rescorla_wagner
from .rescorla_wagner_two_rates import rescorla_wagner_two_rates
from .risky_choice import risky_choice
from .signal_detection import signal_detection
from .signal_detection_unequal import signal_detection_unequal

__all__ = [
    "available",
    "bayesian_observer",
    "linear_regression",
    "logistic_regression",
    "meta_d",
    "poisson_regression",
    "psychometric",
    "rescorla_wagner",
    "rescorla_wagner_two_rates",
    "risky_choice",
    "signal_detection",
    "signal_detection_unequal",
]
