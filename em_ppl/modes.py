"""Every subject's mode under the group, and the Laplace approximation around it.

All subjects at once, each leaving the batch when its gradient is small. The search runs in the space where the
group has location 0 and scale 1, so that it does not depend on the units of the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.compiled import CompiledModel
from em_ppl.data import label_text
from em_ppl.derivatives import differences, gradients, hessians, newton, points_around
from em_ppl.group import FloatArray, Group, Index
from em_ppl.model import ModelError
from em_ppl.search import ARMIJO, ROUNDING, SHORTER, Minima, descent, minimise
from em_ppl.small_matrices import cholesky, product, product_with_itself, transposed

GRADIENT_TOLERANCE = 1e-6
MOST_LOOKS = 8  # for Newton's method; whom it has not brought to a mode then, is searched for
NEARLY = 1e-5  # twice the log posterior left to gain, some thousandths of an SD: one more step leaves next to nothing
LONGEST_STEP = 3.0  # in SDs of the group
NO_HILL = 1e-8  # curvature of a posterior, below which it has no maximum in that direction
STENCIL = 1e-3  # of a posterior SD: truncation 1e-7, rounding 1e-11 of the second derivative
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
        (subject, declared parameter), gradient of the log-likelihood there, where that is known, as of modes under
        another group: the search then begins a step of Newton's from there.
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
        log_determinant = np.linalg.slogdet(2 * np.pi * self.covariance)[1]
        return self.log_likelihood + self.log_prior + 0.5 * log_determinant


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


class Place(NamedTuple):
    """Where subjects are, in the space in which the group is standard, and derivatives of their log-likelihoods."""

    z: FloatArray
    log_likelihood: FloatArray
    slope: FloatArray  # (subject, declared parameter)
    second: FloatArray  # negative, (subject, declared parameter, parameter)
    third: FloatArray  # (subject, direction, declared parameter): two times along the same column of `along`
    along: FloatArray  # about such a root as `root`; where the group is standard, too
    inverse_along: FloatArray
    objective: FloatArray  # negative log posterior, less a constant
    gradient: FloatArray  # of the objective
    root: FloatArray  # of the Laplace covariance, (subject, parameter, parameter)
    inverse_root: FloatArray
    step: FloatArray  # Newton's, downhill
    repaired: NDArray[np.bool_]  # whether the posterior is no hill there, and the root was repaired
    found: NDArray[np.bool_]  # whether it is a mode

    def take(self, who: Index) -> Place:
        """Return some of them."""
        return Place._make(values[who] for values in self)

    def put(self, who: Index, other: Place) -> None:
        """Let some be elsewhere."""
        for mine, its in zip(self, other, strict=True):
            mine[who] = its

    def settle(self, who: Index, group: Group) -> None:
        """Let some be at modes that lie a short step on; all but values and slopes remain those of before."""
        along, second = product(group.factor(who), self.step[who]), self.second[who]
        before, after = self.slope[who], self.slope[who] - product(second, along)
        self.z[who] += self.step[who]
        self.log_likelihood[who] += 0.5 * ((before + after)[:, group.model.varying] * along).sum(1)
        self.slope[who], self.found[who] = after, True


def look_around(
    compiled: CompiledModel, group: Group, z: FloatArray, along: FloatArray, inverse_along: FloatArray, who: Index
) -> Place:
    """Evaluate at z and along the columns of roots of about the Laplace covariances, where the group is standard."""
    value, slope, second, third = differentiate(compiled, group, z, along, inverse_along, who)
    varying, impossible = group.model.varying, ~(np.isfinite(value) & np.isfinite(slope).all(1))
    if impossible.any():
        value[impossible] = -np.inf
        slope[impossible] = 0.0  # of the posterior; its own is against the group's
        inverse = group.inverse_cholesky[group.model.level[who]][impossible]
        slope[np.ix_(impossible, varying)] = np.einsum("nj,nji->ni", group.pull(z[impossible]), inverse)
    objective = group.model.distribution.potential(z, group.model.joint) - value
    return Place(
        *(z, value, slope, second, third, along, inverse_along, objective),
        *newton_steps(group, z, slope, second[:, varying], who),
        found=np.zeros(len(z), dtype=bool),
    )


def newton_steps(
    group: Group, z: FloatArray, slope: FloatArray | None, curvature: FloatArray, who: Index
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Take Newton's steps, downhill, from slopes of the log-likelihoods (None: 0) and Hessians of negative ones.

    Returns
    -------
    gradient : ndarray
        Of the negative log posterior, where the group is standard, (subject, parameter).
    root, inverse : ndarray
        Root of the Laplace covariance there, and its inverse, (subject, parameter, parameter).
    step : ndarray
        (subject, parameter)
    repaired : ndarray of bool
        Whose posterior is no hill there. A direction in which the Hessian is not positive has no maximum: it is given
        curvature 1 in the root, that of a Normal group, as if the trials said nothing about it.
    """
    own, varying = group.curvature(z), group.model.varying
    slope = np.zeros((len(z), len(group.model.unit))) if slope is None else slope
    gradient, hessian, root, inverse, step, bent = newton(
        group.factor(who), slope, curvature, varying, group.pull(z), own, NO_HILL, LONGEST_STEP
    )
    if bent.any():
        step[bent] = descent(hessian[bent], gradient[bent], LONGEST_STEP)
        values, vectors = np.linalg.eigh(hessian[bent])
        flat = values < NO_HILL
        widths = np.sqrt(np.where(flat, 1.0, values))[:, None, :]
        root[bent], inverse[bent], bent[bent] = vectors / widths, transposed(vectors * widths), flat.any(1)
    return gradient, root, inverse, step, bent


def _at_modes(compiled: CompiledModel, group: Group, start: Start, nearly: float) -> Place:
    """Find modes: by Newton's method, where looking around costs about what one evaluation does; else by search."""
    everyone = np.arange(len(start.mode))
    z, along, inverse_along = _begin(group, start)
    if not compiled.many_at_once:
        found = find_modes(compiled, group, group.unstandardise(z), start.curvature)
        return _at_found(compiled, group, found, start.curvature, everyone)
    here = look_around(compiled, group, z, along, inverse_along, everyone)
    left = step_to_modes(compiled, group, here, GRADIENT_TOLERANCE, nearly)
    if len(left):
        found = find_modes(compiled, group, group.unstandardise(z[left], left), start.curvature[left], who=left)
        here.put(left, _at_found(compiled, group, found, start.curvature[left], left))
    return here


def _begin(group: Group, start: Start) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Say where the search begins, and about which root the covariance has there (and the inverse of the root)."""
    z, everyone = group.standardise(start.mode), np.arange(len(start.mode))
    _, root, inverse, step, _ = newton_steps(group, z, start.slope, start.curvature, everyone)
    if start.slope is None:
        return z, root, inverse
    return z + np.where(np.isfinite(step), step, 0.0), root, inverse  # where a slope overflows it begins where it was


def _at_found(compiled: CompiledModel, group: Group, found: Minima, curvature: FloatArray, who: Index) -> Place:
    """Look around where a search ended."""
    _, root, inverse, _, _ = newton_steps(group, found.point, None, curvature, who)
    return look_around(compiled, group, found.point, root, inverse, who)._replace(found=found.converged)


def step_to_modes(compiled: CompiledModel, group: Group, here: Place, tol: float, nearly: float) -> Index:
    """Take Newton's steps, shortened until they lead down; return who has not come to a mode.

    Where there is no more than `nearly` left to gain the last step is taken without a look: derivatives say what is
    there.
    """
    now, going, share = here, np.arange(len(here.z)), np.ones(len(here.z))
    for looks in range(1, MOST_LOOKS + 1):
        promised = (now.step * now.gradient).sum(1)
        possible = np.isfinite(now.objective)
        arrived = possible & (np.abs(now.gradient).max(1) <= _tolerance(group, tol))
        # a curvature of 0 may be one that could not be taken
        last = possible & ~arrived & (-promised <= nearly) & now.second[:, group.model.varying].any((1, 2))
        here.found[going[arrived]] = True
        here.settle(going[last], group)
        further = np.flatnonzero(possible & ~arrived & ~last)
        if not len(further) or looks == MOST_LOOKS:
            break
        if len(further) < len(going):
            now, going, share, promised = now.take(further), going[further], share[further], promised[further]
        there = look_around(compiled, group, now.z + share[:, None] * now.step, now.root, now.inverse_root, going)
        most = now.objective + ARMIJO * share * promised + ROUNDING * np.abs(now.objective)
        down = np.flatnonzero(there.objective <= most)
        share *= SHORTER
        share[down] = 1.0
        if len(down) < len(going):
            there = there.take(down)
            now.put(down, there)
        else:
            now = there
        here.put(going[down], there)
    return np.flatnonzero(~here.found)


def _objective(
    group: Group, z: FloatArray, log_likelihood: FloatArray, slope: FloatArray, who: Index
) -> tuple[FloatArray, FloatArray]:
    """Negative log posterior, less a constant, and its gradient, where the group is standard."""
    value = group.model.distribution.potential(z, group.model.joint) - log_likelihood
    return value, gradients(group.factor(who), slope, group.model.varying, group.pull(z))


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
        return _objective(group, z, value, gradient, index)

    z = group.standardise(start, who)
    hessian = hessians(group.factor(who), curvature, group.curvature(z))
    return minimise(objective, z, hessian, _tolerance(group, tol), LONGEST_STEP)


def differentiate(
    compiled: CompiledModel, group: Group, z: FloatArray, along: FloatArray, inverse_along: FloatArray, who: Index
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Take derivatives of the log-likelihoods, from 2P + 1 gradients.

    The points lie at x and x +- e l_j, with l_j the columns of L A: first differences of the gradient give H l_j,
    second differences the third derivatives, two times along l_j and by any parameter.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    group : Group
        Whose location, Cholesky factor L and shared parameters count.
    z : ndarray
        (subject, parameter), the varying parameters x where the group is standard.
    along, inverse_along : ndarray
        A, a root of about the Laplace covariance there, and its inverse, (subject, parameter, parameter).
    who : ndarray of int
        Which subjects these are.

    Returns
    -------
    value : ndarray
        Log-likelihoods at x, (subject,).
    slope : ndarray
        Their gradients, (subject, declared parameter).
    second : ndarray
        (subject, declared parameter, parameter), derivatives of the negative log-likelihoods by any and by a varying
        parameter; 0 where a gradient in the neighbourhood is no finite number.
    third : ndarray
        Of the negative log-likelihoods, (subject, direction, declared parameter); 0 there, too.
    """
    factor, varying = group.factor(who), group.model.varying
    declared = group.complete(np.zeros(len(varying)))
    points = points_around(group.location[who], factor, z, along, declared, varying, STENCIL)
    n, k, d = points.shape
    value, slopes = compiled.value_and_gradient(points.reshape(n * k, d), np.repeat(who, k))
    slope, second, third = differences(slopes.reshape(n, k, d), factor, inverse_along, varying, STENCIL)
    return value[::k].copy(), slope, second, third


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
        See `differentiate`.
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
    length = np.sqrt(np.maximum(0.5 * (shift * bend).sum(1), 0))  # w' V^-1 w = w' t / 2
    long = length > LARGEST_SHIFT
    return shift / np.where(long, length / LARGEST_SHIFT, 1.0)[:, None], long
