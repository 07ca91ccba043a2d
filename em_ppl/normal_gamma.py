"""What is known about a group's means and precisions, each parameter by itself: Normal-Gamma distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from em_ppl.group import FloatArray

__all__ = ["NormalGamma"]


@dataclass(frozen=True, eq=False)
class NormalGamma:
    """tau is Gamma(nu, sigma), shape and rate, and mu given tau is Normal(a, 1 / (beta tau)).

    Attributes
    ----------
    a, sigma : ndarray
        (parameter,), Gaussian space.
    beta, nu : float
        The same for all parameters.
    """

    a: FloatArray
    beta: float
    nu: float
    sigma: FloatArray

    @property
    def variance(self) -> FloatArray:
        """1 / E[tau], (parameter,)."""
        return self.sigma / self.nu

    @property
    def standard_error(self) -> FloatArray:
        """Scale of the t distribution, with 2 nu degrees of freedom, that mu has: Piray's hierarchical error."""
        return np.sqrt(self.sigma / (self.beta * self.nu))

    def learn(self, weight: FloatArray, mean: FloatArray, variance: FloatArray) -> NormalGamma:
        """Return the posterior, from subjects with weights whose own parameters are known up to a variance.

        Parameters
        ----------
        weight : ndarray
            (subject,)
        mean, variance : ndarray
            (subject, parameter)
        """
        n = weight.sum()
        about = self.a if n == 0 else weight @ mean / n
        squares = weight @ ((mean - about) ** 2 + variance) + n * self.beta / (n + self.beta) * (about - self.a) ** 2
        return NormalGamma(
            a=(self.beta * self.a + n * about) / (self.beta + n),
            beta=float(self.beta + n),
            nu=float(self.nu + n / 2),
            sigma=self.sigma + squares / 2,
        )

    def like(self, n: float, a: FloatArray, variance: FloatArray) -> NormalGamma:
        """Return a posterior from n subjects that has this centre and this variance."""
        nu = self.nu + n / 2
        return NormalGamma(a, self.beta + n, nu, nu * variance)

    @property
    def log_shrinkage(self) -> float:
        """By how much exp(E[log Normal(x; mu, 1 / tau)]) lies below Normal(x; a, 1 / E[tau]), on the log scale."""
        return float(len(self.a) / 2 * (scipy.special.psi(self.nu) - np.log(self.nu) - 1 / self.beta))

    def divergence(self, prior: NormalGamma) -> float:
        """KL divergence from the prior."""
        of_tau = (
            (self.nu - prior.nu) * scipy.special.psi(self.nu)
            - scipy.special.gammaln(self.nu)
            + scipy.special.gammaln(prior.nu)
            + prior.nu * np.log(self.sigma / prior.sigma)
            + self.nu * (prior.sigma / self.sigma - 1)
        )
        ratio = prior.beta / self.beta
        of_mu = (ratio - 1 - np.log(ratio) + prior.beta * (self.a - prior.a) ** 2 / self.variance) / 2
        return float((of_tau + of_mu).sum())

    def draw(self, n: int, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw means and standard deviations of the group, (draw, parameter)."""
        tau = generator.gamma(self.nu, 1 / self.sigma, (n, len(self.a)))
        return generator.normal(self.a, 1 / np.sqrt(self.beta * tau)), 1 / np.sqrt(tau)
