"""Rescorla-Wagner by hand in numba, derivatives worked out on paper: about as fast as one core can fit it.

Only for `speed`: what `em_ppl.fit` is measured against. EM as in the package, diagonal group, one Newton step from the
last mode before each M-step and more where that does not do; no acceleration, no search for second modes, no standard
errors.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

STEPS = 30
NEAR = 1e-6  # gradient at a mode, in SDs of the group
STENCIL = 1e-3


@njit(cache=True, fastmath=False)
def log_likelihood(a, b, choice, reward):  # type: ignore[no-untyped-def]
    """Value, gradient and Hessian by logit alpha and log beta; one subject."""
    alpha, beta = 1 / (1 + np.exp(-a)), np.exp(b)
    slope = alpha * (1 - alpha)
    bend = slope * (1 - 2 * alpha)
    q0 = q1 = d0 = d1 = e0 = e1 = 0.0  # values, and first and second derivatives by alpha
    value = ga = gb = haa = hab = hbb = 0.0
    for t in range(len(choice)):
        if choice[t] == 0:
            v, dv, ev = q0 - q1, d0 - d1, e0 - e1
        else:
            v, dv, ev = q1 - q0, d1 - d0, e1 - e0
        z = beta * v
        tail = np.exp(-abs(z))
        value += min(z, 0.0) - np.log1p(tail)
        s = tail / (1 + tail) if z > 0 else 1 / (1 + tail)  # 1 - probability of the choice
        w = s * (1 - s)
        za = beta * dv * slope
        ga += s * za
        gb += s * z
        haa += -w * za * za + s * beta * (ev * slope * slope + dv * bend)
        hab += -w * za * z + s * za
        hbb += -w * z * z + s * z
        if choice[t] == 0:
            e0 = (1 - alpha) * e0 - 2 * d0
            d0 = (1 - alpha) * d0 + reward[t] - q0
            q0 += alpha * (reward[t] - q0)
        else:
            e1 = (1 - alpha) * e1 - 2 * d1
            d1 = (1 - alpha) * d1 + reward[t] - q1
            q1 += alpha * (reward[t] - q1)
    return value, ga, gb, haa, hab, hbb


@njit(cache=True)
def find_mode(a, b, choice, reward, mean, variance):  # type: ignore[no-untyped-def]
    """Newton's method from (a, b), damped; the mode, and the Hessian of the negative log posterior there."""
    value, ga, gb, haa, hab, hbb = log_likelihood(a, b, choice, reward)
    f = 0.5 * ((a - mean[0]) ** 2 / variance[0] + (b - mean[1]) ** 2 / variance[1]) - value
    for _ in range(STEPS):
        ga, gb = (a - mean[0]) / variance[0] - ga, (b - mean[1]) / variance[1] - gb
        haa, hab, hbb = 1 / variance[0] - haa, -hab, 1 / variance[1] - hbb
        if abs(ga) * np.sqrt(variance[0]) < NEAR and abs(gb) * np.sqrt(variance[1]) < NEAR:
            break
        paa, pbb, pab = haa, hbb, hab
        if haa <= 0 or haa * hbb - hab * hab <= 0:
            paa, pbb, pab = max(abs(haa), 1 / variance[0]), max(abs(hbb), 1 / variance[1]), 0.0
        determinant = paa * pbb - pab * pab
        da, db = -(pbb * ga - pab * gb) / determinant, -(paa * gb - pab * ga) / determinant
        size = 1.0
        for _ in range(12):
            x, y = a + size * da, b + size * db
            value, ga, gb, haa, hab, hbb = log_likelihood(x, y, choice, reward)
            moved = 0.5 * ((x - mean[0]) ** 2 / variance[0] + (y - mean[1]) ** 2 / variance[1]) - value
            if moved <= f + 1e-12 * abs(f):
                break
            size *= 0.3
        a, b, f = x, y, moved
    return a, b, haa, hab, hbb


@njit(cache=True)
def shift(a, b, choice, reward, vaa, vab, vbb):  # type: ignore[no-untyped-def]
    """Mode minus mean, V t / 2: third derivatives from differences of the Hessian."""
    t = np.empty(2)
    for k in range(2):
        h = STENCIL * np.sqrt(vaa if k == 0 else vbb)
        up = log_likelihood(a + h * (k == 0), b + h * (k == 1), choice, reward)
        down = log_likelihood(a - h * (k == 0), b - h * (k == 1), choice, reward)
        t[k] = -(vaa * (up[3] - down[3]) + 2 * vab * (up[4] - down[4]) + vbb * (up[5] - down[5])) / (2 * h)
    wa, wb = 0.5 * (vaa * t[0] + vab * t[1]), 0.5 * (vab * t[0] + vbb * t[1])
    long = np.sqrt(max(0.5 * (wa * t[0] + wb * t[1]), 0.0))
    return (wa / long, wb / long) if long > 1 else (wa, wb)


@njit(cache=True)
def fit(choice, reward, corrected, tol, max_iter):  # type: ignore[no-untyped-def]
    """EM: group mean and variance, (parameter,), and how many iterations it took."""
    n = len(choice)
    mode = np.zeros((n, 2))
    mean, variance = np.zeros(2), np.full(2, 1.5**2)
    iterations = 0
    while iterations < max_iter:
        iterations += 1
        first, second = np.zeros(2), np.zeros(2)
        for i in range(n):
            a, b, haa, hab, hbb = find_mode(mode[i, 0], mode[i, 1], choice[i], reward[i], mean, variance)
            mode[i, 0], mode[i, 1] = a, b
            determinant = haa * hbb - hab * hab
            vaa, vab, vbb = hbb / determinant, -hab / determinant, haa / determinant
            wa = wb = 0.0
            if corrected:
                wa, wb = shift(a, b, choice[i], reward[i], vaa, vab, vbb)
            first += np.array([a - wa, b - wb])
            second += np.array([vaa - wa * wa + (a - wa) ** 2, vbb - wb * wb + (b - wb) ** 2])
        new_mean = first / n
        new_variance = second / n - new_mean**2
        change = max(
            np.abs((new_mean - mean) / np.sqrt(variance)).max(), 0.5 * np.abs(np.log(new_variance / variance)).max()
        )
        mean, variance = new_mean, new_variance
        if change < tol:
            break
    return mean, variance, iterations
