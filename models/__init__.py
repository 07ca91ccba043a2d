"""The zoo: one flat file per model, with the likelihood of one subject, its task, and a citation.

A model is fitted by ``em.fit(rescorla_wagner, data)``. The file of the same name tells which columns the data need, and
makes the experiment: ``from em_ppl.models.rescorla_wagner import task``, for `em_ppl.simulate` and `em_ppl.recover`.
``available()`` lists them all.
"""

from .actor_critic import actor_critic
from .bayesian_observer import bayesian_observer
from .catalogue import available
from .drift_diffusion import drift_diffusion
from .effort_discounting import effort_discounting
from .exponential_discounting import exponential_discounting
from .go_nogo_pavlovian import go_nogo_pavlovian
from .hgf_binary import hgf_binary
from .hyperbolic_discounting import hyperbolic_discounting
from .hyperboloid_discounting import hyperboloid_discounting
from .kalman_bandit import kalman_bandit
from .linear_regression import linear_regression
from .logistic_regression import logistic_regression
from .magnitude_discounting import magnitude_discounting
from .meta_d import meta_d
from .pearce_hall import pearce_hall
from .poisson_regression import poisson_regression
from .prospect_theory import prospect_theory
from .psychometric import psychometric
from .quasi_hyperbolic_discounting import quasi_hyperbolic_discounting
from .rescorla_wagner import rescorla_wagner
from .rescorla_wagner_forgetting import rescorla_wagner_forgetting
from .rescorla_wagner_perseveration import rescorla_wagner_perseveration
from .rescorla_wagner_two_rates import rescorla_wagner_two_rates
from .reversal_counterfactual import reversal_counterfactual
from .risk_ambiguity import risk_ambiguity
from .risky_choice import risky_choice
from .signal_detection import signal_detection
from .signal_detection_unequal import signal_detection_unequal
from .two_step import two_step
from .two_step_deterministic import two_step_deterministic
from .two_step_model_based import two_step_model_based
from .two_step_model_free import two_step_model_free
from .ultimatum import ultimatum

__all__ = [
    "actor_critic",
    "available",
    "bayesian_observer",
    "drift_diffusion",
    "effort_discounting",
    "exponential_discounting",
    "go_nogo_pavlovian",
    "hgf_binary",
    "hyperbolic_discounting",
    "hyperboloid_discounting",
    "kalman_bandit",
    "linear_regression",
    "logistic_regression",
    "magnitude_discounting",
    "meta_d",
    "pearce_hall",
    "poisson_regression",
    "prospect_theory",
    "psychometric",
    "quasi_hyperbolic_discounting",
    "rescorla_wagner",
    "rescorla_wagner_forgetting",
    "rescorla_wagner_perseveration",
    "rescorla_wagner_two_rates",
    "reversal_counterfactual",
    "risk_ambiguity",
    "risky_choice",
    "signal_detection",
    "signal_detection_unequal",
    "two_step",
    "two_step_deterministic",
    "two_step_model_based",
    "two_step_model_free",
    "ultimatum",
]
