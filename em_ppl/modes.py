"""Every subject's mode under the group, and the Laplace approximation around it.

All subjects at once, each leaving the batch when its gradient is small. The search runs in the space where the
group has location 0 and scale 1, so that it does not depend on the units of the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from em_ppl.compiled import CompiledModel
from em_ppl.data import label_text
from em_ppl.group import FloatArray, Group, Index
from em_ppl.model import ModelError
from em_ppl.places import LONGEST_STEP, STENCIL, Place, lay, look, stand
from em_ppl.search import Minima, minimise
from em_ppl.small_matrices import cholesky, product, product_with_itself, transposed

GRADIENT_TOLERANCE = 1e-6
MOST_LOOKS = 8  # for Newton's method; whom it has not brought to a mode then, is searched for
NEARLY = 1e-5  # twice the log posterior left to gain, some thousandths of an SD: one more step leaves next to nothing
LARGEST_SHIFT = 1.0  # in posterior SDs


@dataclass(frozen=True)
class Start:
    """Where the search for subjects' modes begins; Gaussian space.

    Attributes
    ----------
    mode : ndarray
        (subject, parameter), the varying parameters.
    curvature : ndarray
        (subject, parameter, parameter), Hessian of the negative log-likelihood near there. A guess will do; with three
        parameters and more not for all of the shift, see `bend_over`, but while EM converges it becomes that.
    slope : ndarray or None
        (subject, declared parameter), gradient of the log-likelihood there, where that is known (else NaN), as of modes
        under another group: the search then begins a step of Newton's from there.
    """

    mode: FloatArray
    curvature: FloatArray
    slope: FloatArray | None = None

    def take(self, subjects: Index | slice) -> Start:
        """Return the same for some of the subjects."""
        slope = None if self.slope is None else self.slope[subjects]
        return Start(self.mode[subjects], self.curvature[subjects], slope)


@dataclass(frozen=True)
class LaplaceApproximation:
    """Normal approximations of all subjects' posteriors around their modes, under one group; Gaussian space.

    Attributes
    ----------
    mode : ndarray
        (subject, parameter), the varying parameters.
    covariance : ndarray
        Laplace covariance, (subject, parameter, parameter).
    shift : ndarray
        Mode minus posterior mean, to second order, (subject, parameter).
    curvature : ndarray
        Hessian of the negative log-likelihood alone at the mode, (subject, parameter, parameter).
    slope : ndarray
        Gradient of the log-likelihood alone at the mode, (subject, declared parameter): shared ones too.
    cross : ndarray
        Second derivative of the negative log-likelihood by a shared and a varying parameter, (subject, shared,
        parameter).
    bend : ndarray
        Third derivatives of the negative log-likelihood summed over the covariance, (subject, declared parameter); see
        `bend_over`.
    log_likelihood, log_prior : ndarray
        At the mode, (subject,).
    converged : ndarray of bool
        Whether the search ended at a mode.
    repaired : ndarray of bool
        Whether the curvature at the mode was no maximum's, and was repaired.
    shortened : ndarray of bool
        Whether the shift was longer than one posterior SD, and was cut to it.
    """

    mode: FloatArray
    covariance: FloatArray
    shift: FloatArray
    curvature: FloatArray
    slope: FloatArray
    cross: FloatArray
    bend: FloatArray
    log_likelihood: FloatArray
    log_prior: FloatArray
    converged: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    shortened: NDArray[np.bool_]

    def take(self, subjects: Index) -> LaplaceApproximation:
        """Return the same for some of the subjects."""
        return LaplaceApproximation(**{name: values[subjects] for name, values in vars(self).items()})

    @property
    def start(self) -> Start:
        """Where the search under a group close by begins."""
        return Start(self.mode, self.curvature, self.slope)

    @property
    def log_evidence(self) -> FloatArray:
        """Laplace's approximation of each subject's log marginal likelihood, (subject,)."""
        root, _, _ = cholesky(2 * np.pi * self.covariance)
        return np.asarray(self.log_likelihood + self.log_prior + np.log(np.einsum("nii->ni", root)).sum(1))


@np.errstate(over="ignore", invalid="ignore")  # what is no finite number is seen to
def approximate(compiled: CompiledModel, group: Group, start: Start, *, brisk: bool = False) -> LaplaceApproximation:
    """Find every subject's mode, and the Laplace approximation there.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    group : Group
        The prior of each subject.
    start : Start
        Where the searches begin.
    brisk : bool
        Whether the last of Newton's steps need not be looked at: the second and third derivatives are then those from
        some thousandths of a posterior SD away.
    """
    here = _at_modes(compiled, group, start, NEARLY if brisk else 0.0)
    varying, factor = group.model.varying, group.factor()
    covariance, mode = product_with_itself(product(factor, here.root)), group.unstandardise(here.z)
    if cholesky(covariance)[2].any():
        raise _shrunk(compiled, group, mode, covariance, np.arange(len(mode)))
    away = product(here.inverse_along, group.inverse_cholesky[group.model.level])
    bend = bend_over(covariance, product(factor, here.along), away, here.third, varying)
    shift, shortened = _shift(covariance, bend[:, varying] + _bend_of_group(group, mode, covariance))
    return LaplaceApproximation(
        mode=mode,
        covariance=covariance,
        shift=shift,
        curvature=here.second[:, varying],
        slope=here.slope,
        cross=here.second[:, group.model.shared],
        bend=bend,
        log_likelihood=here.log_likelihood,
        log_prior=group.log_density_of_standardised(here.z),
        converged=here.found,
        repaired=here.repaired,
        shortened=shortened,
    )


def _at_modes(compiled: CompiledModel, group: Group, start: Start, nearly: float) -> Place:
    """Find modes: by Newton's method, where looking around costs about what one evaluation does; else by search."""
    everyone = np.arange(len(start.mode))
    here = stand(group, group.standardise(start.mode), start.curvature, everyone, start.slope)
    left = step_to_modes(compiled, group, here, GRADIENT_TOLERANCE, nearly) if compiled.many_at_once else everyone
    if len(left):
        curvature = start.curvature[left]
        found = find_modes(compiled, group, group.unstandardise(here.z[left], left), curvature, who=left)
        there = stand(group, found.point, curvature, left)
        look_around(compiled, group, there, left, np.arange(len(left)))
        there.found[:] = found.converged
        here.put(left, there)
    return here


def step_to_modes(compiled: CompiledModel, group: Group, here: Place, tol: float, nearly: float) -> Index:
    """Take Newton's steps, shortened until they lead down; return who has not come to a mode.

    Where there is no more than `nearly` left to gain the last step is taken without a look: derivatives say what is
    there.
    """
    everyone = going = np.arange(len(here.z))
    looks, tolerance = 0, _tolerance(group, tol)
    while len(going) and looks < MOST_LOOKS:
        going, looks = look_around(compiled, group, here, everyone, going, tolerance, nearly), looks + 1
    return np.flatnonzero(~here.found)


def look_around(
    compiled: CompiledModel,
    group: Group,
    here: Place,
    who: Index,
    going: Index,
    tolerance: float = -1.0,
    nearly: float = -1.0,
) -> Index:
    """Take one step of some rows; return whose search goes on. By default no place is close enough to a mode to end."""
    z, points, whose = lay(group, here, who, going)
    n, k, d = points.shape
    values, slopes = compiled.value_and_gradient(points.reshape(n * k, d), whose.reshape(n * k))
    found = z, values.reshape(n, k), slopes.reshape(n, k, d)
    return look(group, here, who, going, found, tolerance, nearly)


def _tolerance(group: Group, tol: float) -> float:
    return max(tol * min(1.0, float(group.sd.min())), 1e-10)  # holds in both spaces


def _shrunk(compiled: CompiledModel, group: Group, x: FloatArray, covariance: FloatArray, who: Index) -> ModelError:
    """Say that a Laplace covariance is that of a point or a line, as far as floats can tell."""
    widths = np.linalg.eigvalsh(np.where(np.isfinite(covariance), covariance, 0.0))
    worst, varying = int((widths[:, 0] / np.maximum(widths[:, -1], 1e-300)).argmin()), group.model.varying
    far = int((np.abs(x[worst] - group.model.centre[varying]) / group.model.unit[varying]).argmax())
    name, parameter = list(compiled.model.parameters.items())[varying[far]]
    return ModelError(
        f"{compiled.model.name}: the posterior of subject {label_text(compiled.data['subject'].values[who[worst]])} "
        f"shrinks to a point at {name}={float(parameter.to_natural(x[worst, far])):.3g}: its log-likelihood seems "
        f"to have no bound there, as where an SD goes to 0 since the mean can be every response. Bound {name!r}, "
        "let all subjects share it (shared=True), or leave the subject out."
    )


def find_modes(
    compiled: CompiledModel,
    group: Group,
    start: FloatArray,
    curvature: FloatArray,
    *,
    who: Index | None = None,
    tol: float = GRADIENT_TOLERANCE,
) -> Minima:
    """Search the mode of every subject, or of each that is given, in the space where the group is standard."""
    who = np.arange(len(start)) if who is None else who

    def objective(z: FloatArray, rows: Index) -> tuple[FloatArray, FloatArray]:
        index = who[rows]
        value, gradient = compiled.value_and_gradient(group.complete(group.unstandardise(z, index)), index)
        value = group.model.distribution.potential(z, group.model.joint) - value
        return value, group.pull(z) - product(transposed(group.factor(index)), gradient[:, group.model.varying])

    z = group.standardise(start, who)
    factor = group.factor(who)
    hessian = group.curvature(z) + product(transposed(factor), product(curvature, factor))
    return minimise(objective, z, hessian, _tolerance(group, tol), LONGEST_STEP)


def bend_over(
    covariance: FloatArray, root: FloatArray, inverse: FloatArray, third: FloatArray, varying: Index
) -> FloatArray:
    """Sum third derivatives over a covariance that is close to that of which the root is.

    With V = L W L', t_k = sum_ab W_ab T(l_a, l_b, e_k). Of this T(l_a, l_a, e_k) is `third`. Where a and b differ
    T(l_a, l_b, l_c) is that, too, if c is one of them; for the others, and shared parameters, W is taken for 0 there.

    Parameters
    ----------
    covariance, root, inverse : ndarray
        V, L and the inverse of L, (subject, parameter, parameter).
    third : ndarray
        See `em_ppl.places.Place`.
    varying : ndarray of int
        Places of the parameters among the declared ones.

    Returns
    -------
    ndarray
        t, (subject, declared parameter).
    """
    w = product(product(inverse, covariance), transposed(inverse))
    along = product(third[:, :, varying], root)  # T(l_a, l_a, l_b)
    apart = w * along
    apart[:, range(w.shape[1]), range(w.shape[1])] = 0.0
    bend = np.einsum("naa,nak->nk", w, third)
    bend[:, varying] += 2 * product(transposed(inverse), apart.sum(2))
    return bend


def _bend_of_group(group: Group, x: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return what the group adds to the third derivatives by the varying parameters; a Normal has none."""
    if not group.model.distribution.heavy_tails or not group.model.distribution.smooth:
        return np.zeros_like(x)
    sides = STENCIL * np.linalg.cholesky(covariance).transpose(0, 2, 1)  # (subject, direction, parameter)
    up, centre, down = (group.pull(group.standardise(x[:, None] + s)) for s in (sides, 0 * sides, -sides))
    along_z = (up - 2 * centre + down).sum(1) / STENCIL**2
    return np.einsum("nj,nji->ni", along_z, group.inverse_cholesky[group.model.level])


def _shift(covariance: FloatArray, bend: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mode minus mean, V t / 2, no longer than one posterior SD.

    Longer ones are beyond a second-order expansion; within it, V - w w' and so the group's covariance stay positive.
    """
    shift = 0.5 * product(covariance, bend)
    length = np.sqrt(np.maximum(0.5 * np.einsum("na,na->n", shift, bend), 0))  # w' V^-1 w = w' t / 2
    long = length > LARGEST_SHIFT
    return shift / np.where(long, length / LARGEST_SHIFT, 1.0)[:, None], long
