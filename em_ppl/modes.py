"""Every subject's mode under the group, and the Laplace approximation around it.

All subjects at once, each leaving the batch when its gradient is small. The search runs in the space where the
group has location 0 and scale 1, so that it does not depend on the units of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.compiled import CompiledModel
from em_ppl.data import label_text
from em_ppl.group import FloatArray, Group, Index
from em_ppl.model import ModelError
from em_ppl.small_matrices import inverse_roots, product, product_with_itself, solve

Objective = Callable[[FloatArray, Index], tuple[FloatArray, FloatArray]]

GRADIENT_TOLERANCE = 1e-6
MOST_LOOKS = 8  # for Newton's method; whom it has not brought to a mode then, is searched for
MAX_STEPS = 100
ARMIJO = 1e-4  # of what the slope promises a step must bring
SHORTER = 0.3  # share of a step that is tried when it does not lead down
ROUNDING = 1e-14  # share of a value that it may be wrong by
CLOSE = 1e-12  # twice the log posterior that is left to gain: a millionth of a posterior SD
NEARLY = 1e-5  # the same, some thousandths of a posterior SD: one more step of Newton's leaves next to nothing
STUCK = 5  # steps in a row that led no lower, each a tenth of the one before
LONGEST_STEP = 3.0  # in SDs of the group
FLAT = 1e-3  # curvature of a search's steps, the group's being 1
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


class Minima(NamedTuple):
    """Where a batched search ended: point, value, gradient, and whether it is a minimum."""

    point: FloatArray
    value: FloatArray
    gradient: FloatArray
    converged: NDArray[np.bool_]


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
    covariance, mode = product_with_itself(factor @ here.root), group.unstandardise(here.z)
    try:
        np.linalg.cholesky(covariance)  # for those who need it next
    except np.linalg.LinAlgError as error:
        raise _shrunk(compiled, group, mode, covariance, np.arange(len(mode))) from error
    bend = bend_over(covariance, factor @ here.along, here.third, varying)
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
    along: FloatArray  # about such a root as the next one; where the group is standard, too
    hessian: FloatArray  # of the negative log posterior, (subject, parameter, parameter)
    root: FloatArray  # of the Laplace covariance, (subject, parameter, parameter)
    repaired: NDArray[np.bool_]  # whether the posterior is no hill there, and the root was repaired
    found: NDArray[np.bool_]  # whether it is a mode

    def take(self, who: Index) -> Place:
        """Return some of them."""
        return Place._make(values[who] for values in self)

    def moved(self, group: Group, step: FloatArray, who: Index) -> Place:
        """Return the modes that lie a short step on; all but values and slopes are those from here."""
        along = np.einsum("nij,nj->ni", group.factor(who), step)
        less = np.einsum("nij,nj->ni", self.second, along)
        gain = ((self.slope - 0.5 * less)[:, group.model.varying] * along).sum(1)
        return self._replace(
            z=self.z + step,
            log_likelihood=self.log_likelihood + gain,
            slope=self.slope - less,
            found=np.ones(len(step), dtype=bool),
        )

    def put(self, who: Index, other: Place) -> None:
        """Let some be elsewhere."""
        for mine, its in zip(self, other, strict=True):
            mine[who] = its


def look_around(compiled: CompiledModel, group: Group, z: FloatArray, along: FloatArray, who: Index) -> Place:
    """Evaluate at z and along the columns of roots of about the Laplace covariances, where the group is standard."""
    x, factor = group.unstandardise(z, who), group.factor(who)
    sides = factor @ along
    try:
        value, slope, second, third = differentiate(compiled, group, x, sides, who)
    except np.linalg.LinAlgError as error:
        raise _shrunk(compiled, group, x, product_with_itself(sides), who) from error
    varying, impossible = group.model.varying, ~(np.isfinite(value) & np.isfinite(slope).all(1))
    if impossible.any():
        value[impossible] = -np.inf
        slope[impossible] = 0.0  # of the posterior; its own is against the group's
        inverse = group.inverse_cholesky[group.model.level[who]][impossible]
        slope[np.ix_(impossible, varying)] = np.einsum("nj,nji->ni", group.pull(z[impossible]), inverse)
    hessian = hessian_of_posterior(group, z, second[:, varying], factor)
    root, repaired = laplace_root(hessian)
    return Place(z, value, slope, second, third, along, hessian, root, repaired, np.zeros(len(z), dtype=bool))


def _at_modes(compiled: CompiledModel, group: Group, start: Start, nearly: float) -> Place:
    """Find modes: by Newton's method, where looking around costs about what one evaluation does; else by search."""
    everyone = np.arange(len(start.mode))
    z, along = _begin(group, start)
    if not compiled.many_at_once:
        found = find_modes(compiled, group, group.unstandardise(z), start.curvature)
        return _at_found(compiled, group, found, start.curvature, everyone)
    here = look_around(compiled, group, z, along, everyone)
    left = step_to_modes(compiled, group, here, GRADIENT_TOLERANCE, nearly)
    if len(left):
        found = find_modes(compiled, group, group.unstandardise(z[left], left), start.curvature[left], who=left)
        here.put(left, _at_found(compiled, group, found, start.curvature[left], left))
    return here


def _begin(group: Group, start: Start) -> tuple[FloatArray, FloatArray]:
    """Say where the search begins, and about which root the covariance has there, where the group is standard."""
    z, factor = group.standardise(start.mode), group.factor()
    hessian = hessian_of_posterior(group, z, start.curvature, factor)
    root, repaired = laplace_root(hessian)
    if start.slope is None:
        return z, root
    g = group.pull(z) - product(factor.transpose(0, 2, 1), start.slope[:, group.model.varying])
    step = newton_steps(hessian, root, repaired, g)
    return z + np.where(np.isfinite(step), step, 0.0), root  # where a slope overflows it begins where it was


def _at_found(compiled: CompiledModel, group: Group, found: Minima, curvature: FloatArray, who: Index) -> Place:
    """Look around where a search ended."""
    along, _ = laplace_root(hessian_of_posterior(group, found.point, curvature, group.factor(who)))
    return look_around(compiled, group, found.point, along, who)._replace(found=found.converged)


def step_to_modes(compiled: CompiledModel, group: Group, here: Place, tol: float, nearly: float) -> Index:
    """Take Newton's steps, shortened until they lead down; return who has not come to a mode.

    Where there is no more than `nearly` left to gain the last step is taken without a look: derivatives say what is
    there.
    """
    varying, going, share = group.model.varying, np.arange(len(here.z)), np.ones(len(here.z))
    for looks in range(1, MOST_LOOKS + 1):
        now = here.take(going)
        f, g = _objective(group, now.z, now.log_likelihood, now.slope, going)
        step = newton_steps(now.hessian, now.root, now.repaired, g)
        promised = (step * g).sum(1)
        possible, arrived = np.isfinite(f), np.abs(g).max(1) <= _tolerance(group, tol)
        # a curvature of 0 may be one that could not be taken
        known = now.second[:, varying].any((1, 2))
        last = np.flatnonzero(possible & ~arrived & (-promised <= nearly) & known)
        here.found[going] = possible & arrived
        here.put(going[last], now.take(last).moved(group, step[last], going[last]))
        further = np.flatnonzero(possible & ~here.found[going])
        going, step, f, promised = going[further], step[further], f[further], promised[further]
        if not len(going) or looks == MOST_LOOKS:
            break
        z = now.z[further] + share[going, None] * step
        there = look_around(compiled, group, z, now.root[further], going)
        f_there, _ = _objective(group, there.z, there.log_likelihood, there.slope, going)
        down = f_there <= f + ARMIJO * share[going] * promised + ROUNDING * np.abs(f)
        here.put(going[down], there.take(np.flatnonzero(down)))
        share[going] = np.where(down, 1.0, SHORTER * share[going])
    return np.flatnonzero(~here.found)


def _objective(
    group: Group, z: FloatArray, log_likelihood: FloatArray, slope: FloatArray, who: Index
) -> tuple[FloatArray, FloatArray]:
    """Negative log posterior, less a constant, and its gradient, where the group is standard."""
    along_z = np.einsum("ni,nij->nj", slope[:, group.model.varying], group.factor(who))
    value = group.model.distribution.potential(z, group.model.joint) - log_likelihood
    return value, group.pull(z) - along_z


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
    hessian = hessian_of_posterior(group, z, curvature, group.factor(who))
    return minimise(objective, z, hessian, _tolerance(group, tol), LONGEST_STEP)


def hessian_of_posterior(group: Group, z: FloatArray, curvature: FloatArray, factor: FloatArray) -> FloatArray:
    """Hessian of the negative log posterior, where the group is standard: its own at z and what the trials add."""
    return group.curvature(z) + factor.transpose(0, 2, 1) @ curvature @ factor


@np.errstate(over="ignore", invalid="ignore")  # what is no finite number is seen to
def minimise(objective: Objective, z: FloatArray, hessian: FloatArray, tolerance: float, longest_step: float) -> Minima:
    """Minimise many small functions at once: damped BFGS, each row leaving when its gradient is small.

    Parameters
    ----------
    objective : callable
        ``objective(z[rows], rows) -> values, gradients``. A value or gradient that is no finite number means
        "not here": the step towards it is shortened.
    z : ndarray
        (row, dimension), starting points.
    hessian : ndarray
        (row, dimension, dimension), a guess; it need not be positive definite.
    tolerance : float
        Largest absolute gradient of a minimum.
    longest_step : float
        Largest Euclidean length of a step.
    """
    z, hessian = z.copy(), _positive(hessian)
    active, stuck = np.arange(len(z)), np.zeros(len(z), dtype=int)
    f, g = _finite(objective(z, active))
    for _ in range(MAX_STEPS):
        active = active[np.isfinite(f[active]) & (np.abs(g[active]).max(1) > tolerance) & (stuck[active] < STUCK)]
        if not len(active):
            break
        step = descent(hessian[active], g[active], longest_step)
        new, f_new, g_new, moved = _backtrack(objective, z[active], step, f[active], g[active], active)
        hessian[active] = _bfgs(hessian[active], new - z[active], g_new - g[active])
        hessian[active[~moved]] *= 10.0  # no descent along this step: trust the model less
        stuck[active] = np.where(f_new < f[active], 0, stuck[active] + 1)
        z[active], f[active], g[active] = new, f_new, g_new
    # where rounding hides the rest of the gradient, a millionth of a posterior SD will do
    left = (descent(hessian, g, np.inf) * -g).sum(1)
    return Minima(z, f, g, np.isfinite(f) & ((np.abs(g).max(1) <= tolerance) | (left < CLOSE)))


def _finite(values: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    f, g = values
    bad = ~(np.isfinite(f) & np.isfinite(g).all(1))
    return np.where(bad, np.inf, f), np.where(bad[:, None], 0.0, g)


def _positive(hessian: FloatArray) -> FloatArray:
    """Take the curvature's absolute value: Newton's steps then lead down, and BFGS keeps it so."""
    hessian, (_, bent) = hessian.copy(), inverse_roots(hessian, FLAT)
    if len(bent):
        values, vectors = np.linalg.eigh(hessian[bent])
        hessian[bent] = (vectors * np.maximum(np.abs(values), FLAT)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return hessian


def descent(hessian: FloatArray, g: FloatArray, longest: float) -> FloatArray:
    """Return Newton's steps, (row, dimension), downhill also where the Hessian curves down, and no longer than that."""
    root, bent = inverse_roots(hessian, FLAT)
    if len(bent):
        values, vectors = np.linalg.eigh(hessian[bent])
        root[bent] = vectors / np.sqrt(np.maximum(np.abs(values), FLAT))[:, None, :]
    return shortened(-solve(root, g), longest)


def newton_steps(hessian: FloatArray, root: FloatArray, repaired: NDArray[np.bool_], g: FloatArray) -> FloatArray:
    """Do what `descent` does, by roots of the inverse Hessians, of which some have been repaired."""
    step = -solve(root, g)
    if repaired.any():
        step[repaired] = descent(hessian[repaired], g[repaired], LONGEST_STEP)
    return shortened(step, LONGEST_STEP)


def shortened(step: FloatArray, longest: float) -> FloatArray:
    """Make steps no longer than that."""
    length = np.sqrt((step**2).sum(1, keepdims=True))
    return np.asarray(step * np.minimum(1.0, longest / np.maximum(length, 1e-300)))


def _backtrack(
    objective: Objective, z: FloatArray, step: FloatArray, f: FloatArray, g: FloatArray, rows: Index
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Shorten steps until each one descends (Armijo); rows that never do stay where they are."""
    new = z + step
    f_new, g_new = _finite(objective(new, rows))
    slope = (step * g).sum(1)
    rounding = ROUNDING * np.abs(f)
    fraction = 1.0
    for _ in range(12):
        high = np.flatnonzero(f_new > f + ARMIJO * fraction * slope + rounding)
        if not len(high):
            break
        fraction *= SHORTER
        new[high] = z[high] + fraction * step[high]
        f_new[high], g_new[high] = _finite(objective(new[high], rows[high]))
    moved = f_new <= f + rounding
    keep = moved[:, None]
    return np.where(keep, new, z), np.where(moved, f_new, f), np.where(keep, g_new, g), moved


def _bfgs(hessian: FloatArray, s: FloatArray, y: FloatArray) -> FloatArray:
    """Update Hessians by the change y of the gradient along s, where that keeps them positive."""
    sy, hs = (s * y).sum(1), np.einsum("nij,nj->ni", hessian, s)
    shs = (s * hs).sum(1)
    good = (sy > 1e-10 * np.sqrt((s**2).sum(1) * (y**2).sum(1))) & (shs > 0)
    sy, shs = np.where(good, sy, 1.0), np.where(good, shs, 1.0)
    change = np.einsum("ni,nj->nij", y, y) / sy[:, None, None] - np.einsum("ni,nj->nij", hs, hs) / shs[:, None, None]
    return hessian + np.where(good[:, None, None], change, 0.0)


def differentiate(
    compiled: CompiledModel, group: Group, x: FloatArray, root: FloatArray, who: Index | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Take derivatives of the log-likelihoods, from 2P + 1 gradients.

    The points lie at x and x +- e l_j, with l_j the columns of `root`: first differences of the gradient give H l_j,
    second differences the third derivatives, two times along l_j and by any parameter.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    group : Group
        For its shared parameters.
    x : ndarray
        (subject, parameter), the varying parameters.
    root : ndarray
        (subject, parameter, parameter), of about the Laplace covariance.
    who : ndarray of int, optional
        Which subjects these are; all, if left out.

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
    (n, p), sides = x.shape, STENCIL * root.transpose(0, 2, 1)
    points = group.complete(x[:, None] + np.concatenate([np.zeros((n, 1, p)), sides, -sides], axis=1))
    index = np.repeat(np.arange(n) if who is None else who, 2 * p + 1)
    value, slope = compiled.value_and_gradient(points.reshape(len(index), -1), index)
    value, slope = value.reshape(n, -1)[:, 0].copy(), slope.reshape(n, 2 * p + 1, -1)
    here, up, down = slope[:, 0].copy(), slope[:, 1 : p + 1], slope[:, p + 1 :]
    along = ((down - up) / (2 * STENCIL)).transpose(0, 2, 1)
    third = (2 * here[:, None] - up - down) / STENCIL**2
    second = along @ np.linalg.inv(root)
    own = second[:, group.model.varying]
    second[:, group.model.varying] = (own + own.transpose(0, 2, 1)) / 2
    finite = (np.isfinite(second).all((1, 2)) & np.isfinite(third).all((1, 2)))[:, None, None]
    return value, here, np.where(finite, second, 0.0), np.where(finite, third, 0.0)


def bend_over(covariance: FloatArray, root: FloatArray, third: FloatArray, varying: Index) -> FloatArray:
    """Sum third derivatives over a covariance that is close to that of which the root is.

    With V = L W L', t_k = sum_ab W_ab T(l_a, l_b, e_k). Of this T(l_a, l_a, e_k) is `third`. Where a and b differ
    T(l_a, l_b, l_c) is that, too, if c is one of them; for the others, and shared parameters, W is taken for 0 there.

    Parameters
    ----------
    covariance, root : ndarray
        V and L, (subject, parameter, parameter).
    third : ndarray
        See `differentiate`.
    varying : ndarray of int
        Places of the parameters among the declared ones.

    Returns
    -------
    ndarray
        t, (subject, declared parameter).
    """
    inverse = np.linalg.inv(root)
    w = inverse @ covariance @ inverse.transpose(0, 2, 1)
    along = third[:, :, varying] @ root  # T(l_a, l_a, l_b)
    apart = w * along
    apart[:, range(w.shape[1]), range(w.shape[1])] = 0.0
    bend = np.einsum("naa,nak->nk", w, third)
    bend[:, varying] += 2 * np.einsum("nci,nc->ni", inverse, apart.sum(2))
    return bend


def _bend_of_group(group: Group, x: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return what the group adds to the third derivatives by the varying parameters; a Normal has none."""
    if not group.model.distribution.heavy_tails or not group.model.distribution.smooth:
        return np.zeros_like(x)
    sides = STENCIL * np.linalg.cholesky(covariance).transpose(0, 2, 1)  # (subject, direction, parameter)
    up, centre, down = (group.pull(group.standardise(x[:, None] + s)) for s in (sides, 0 * sides, -sides))
    along_z = (up - 2 * centre + down).sum(1) / STENCIL**2
    return np.einsum("nj,nji->ni", along_z, group.inverse_cholesky[group.model.level])


def laplace_root(hessian: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return a root of the inverse of each posterior's Hessian, and whose had to be repaired.

    That is where the group is standard. A direction in which the Hessian is not positive has no maximum there: it is
    given curvature 1, that of a Normal group, as if the trials said nothing about it.
    """
    root, others = inverse_roots(hessian, NO_HILL)
    bad = np.zeros(len(root), dtype=bool)
    if len(others):
        values, vectors = np.linalg.eigh(hessian[others])
        flat = values < NO_HILL
        root[others] = vectors / np.sqrt(np.where(flat, 1.0, values))[:, None, :]
        bad[others] = flat.any(1)
    return root, bad


def _shift(covariance: FloatArray, bend: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mode minus mean, V t / 2, no longer than one posterior SD.

    Longer ones are beyond a second-order expansion; within it, V - w w' and so the group's covariance stay positive.
    """
    shift = 0.5 * np.einsum("nij,nj->ni", covariance, bend)
    length = np.sqrt(np.maximum(0.5 * (shift * bend).sum(1), 0))  # w' V^-1 w = w' t / 2
    long = length > LARGEST_SHIFT
    return shift / np.where(long, length / LARGEST_SHIFT, 1.0)[:, None], long
