"""A model of the zoo with what it is tested against.

The loops are written apart from the models, in Gaussian space and in plain NumPy. They take complex numbers: the
imaginary part of f(x + i h) / h is the slope of f, exact to the last digits (the complex-step derivative).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import em_ppl as em
from em_ppl import models


@dataclass(frozen=True)
class Case:
    """A model's loop, its task, a group in Gaussian space (mean, SD), and the correlations that a fit must reach.

    ``loop(x, t)`` is one subject's log-likelihood; x is in Gaussian space, t holds the columns, without padding.
    """

    loop: Callable
    task: em.Task
    group: dict[str, tuple[float, float]]
    recovery: dict[str, float]
    expected_warning: str | None = None  # of a fit to 60 simulated subjects

    @property
    def name(self):
        return self.loop.__name__

    @property
    def model(self):
        return getattr(models, self.name)

    def draw(self, n_subjects, seed):
        """Draw subjects: Gaussian space, (subject, parameter)."""
        people = em.draw_subjects(self.model, self.group, n_subjects, random_seed=seed)
        return np.column_stack([p.to_gaussian(people[name]) for name, p in self.model.parameters.items()])


def unit(x):
    return 1 / (1 + np.exp(-x))


def log_odds(z, yes):
    """Log probability of a yes (or no) whose log odds are z."""
    return -np.log(1 + np.exp(-z if yes else z))


def log_softmax(z, choice):
    """Log probability of a choice among options of these logits."""
    return z[choice] - np.log(np.exp(z - z.real.max()).sum()) - z.real.max()
