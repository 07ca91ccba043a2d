"""Objectives that were written for pyEM, as they stand: functions in Gaussian space, which transform it themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from em_ppl.data import from_subjects
from em_ppl.group import FloatArray
from em_ppl.model import ModelError
from em_ppl.parameters import Interval, Parameter, Positive, Real, Unit
from em_ppl.python_models import Case, PythonModel, check_spreads

__all__ = ["PyEMModel", "from_pyem"]

IMPOSSIBLE = 1e6  # what objectives return, or more, where parameters are out of range
CELLS = np.linspace(-3, 3, 13)  # where transforms are compared


@dataclass(frozen=True, eq=False, repr=False)
class PyEMModel(PythonModel):
    """An objective of pyEM: a function of parameters in Gaussian space, which it transforms itself."""

    def log_likelihood(self, x: FloatArray, case: Case) -> Any:
        """See `PythonModel`."""
        value = self.function(x, *case, prior=None, output="npl")
        if isinstance(value, int | float | np.number) and value >= IMPOSSIBLE:
            return -np.inf
        return value if value is None else -value

    def read(self, all_data: Any) -> xr.Dataset:
        """Turn pyEM's list of one list a subject, or a mapping from labels to such, into a Dataset."""
        data = from_subjects(all_data, columns=self.columns)
        text = {name: v.fillna("") for name, v in data.items() if v.dtype == object and _is_text(v.values)}
        return data.assign({name: variable.astype(str) for name, variable in text.items()})


def _is_text(values: NDArray[Any]) -> bool:
    return all(isinstance(value, str | None) for value in values.ravel())


def from_pyem(
    fit_func: Callable[..., Any],
    param_names: Sequence[str],
    param_xform: Sequence[Callable[..., Any] | Parameter] | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> PythonModel:
    """Take an objective that was written for pyEM, as it stands.

    `em_ppl.fit` then takes pyEM's list of one list a subject for data, too. What a likelihood in PyMC has besides
    (simulation, prediction, NUTS, many times the speed), this has not.

    Parameters
    ----------
    fit_func : callable
        ``fit_func(params, *data, prior=None, output="npl")``: the negative log-likelihood of one subject, if prior is
        None; params in Gaussian space. Values of 1e6 and more mean that parameters are out of range.
    param_names : sequence of str
        Names of the parameters, in order.
    param_xform : sequence, optional
        For each parameter pyEM's transform (``norm2alpha``, ``norm2beta``, ``np.exp``, any function that does what a
        link of this package does), or `Real`, `Positive`, `Unit` or `Interval`. Left out, parameters are shown in
        Gaussian space.
    columns : sequence of str, optional
        Names of the data, if they are not those in the function's signature.

    Returns
    -------
    PythonModel

    Raises
    ------
    ModelError
        If a transform is none of this package's, or the function cannot be called as pyEM calls it.

    References
    ----------
    Rhoads, S. A. (2023). pyEM: Expectation Maximization with MAP estimation in Python.
    https://doi.org/10.5281/zenodo.10415396

    Examples
    --------
    >>> import em_ppl as em, numpy as np
    >>> def coin(params, heads, prior=None, output="npl"):
    ...     p = 1 / (1 + np.exp(-params[0]))
    ...     nll = -(heads * np.log(p) + (1 - heads) * np.log(1 - p)).sum()
    ...     return nll if prior is None else nll - prior.logpdf(params)
    >>> model = em.from_pyem(coin, ["p"], [lambda x: 1 / (1 + np.exp(-x))])
    >>> model
    <Python model coin(p: Unit) of heads>
    >>> all_data = [[np.array([0, 1, 1])], [np.array([0, 0, 1, 0])], [np.array([1, 1, 1])]]
    >>> fit = em.fit(model, all_data, estimator="laplace", progressbar=False)
    """
    name = getattr(fit_func, "__name__", repr(fit_func))
    if param_xform is None:
        param_xform = [Real(spread=1.5)] * len(param_names)
    if len(param_xform) != len(param_names):
        raise ModelError(f"{name}: {len(param_xform)} transforms for {len(param_names)} parameters.")
    parameters = {
        parameter: xform if isinstance(xform, Parameter) else _recognise(name, parameter, xform)
        for parameter, xform in zip(param_names, param_xform, strict=True)
    }
    check_spreads(name, parameters)
    return PyEMModel(fit_func, parameters, tuple(columns or _data_of(name, fit_func)))


def _data_of(name: str, fit_func: Callable[..., Any]) -> list[str]:
    """Names of the data in the signature of an objective."""
    arguments = list(inspect.signature(fit_func).parameters.values())
    keywords = [a.name for a in arguments]
    takes_all = any(a.kind is a.VAR_KEYWORD for a in arguments)
    if not takes_all and not {"prior", "output"} <= set(keywords):
        raise ModelError(f"{name} takes no prior=... and output=..., as pyEM's objectives do: see em.python_model.")
    if any(a.kind is a.VAR_POSITIONAL for a in arguments):
        raise ModelError(f"{name} does not name its data: say columns=[...], one name for each of a subject's arrays.")
    data = [a.name for a in arguments[1:] if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD]
    return [one for one in data if one not in ("prior", "output")]


def _recognise(name: str, parameter: str, xform: Callable[..., Any]) -> Parameter:
    """Find the link that does what a transform does."""
    natural = np.array([float(xform(x)) for x in CELLS])
    high = float(xform(40.0))
    choices = [Real(spread=1.5), Positive(), Positive(link="softplus"), Unit(), Unit(link="probit")]
    if 0 < high < np.inf:
        low = float(xform(-40.0))
        choices += [Interval(round(low, 9), round(high, 9), link=link) for link in ("logit", "probit") if low < high]
    for choice in choices:
        if np.allclose(choice.to_natural(CELLS), natural, rtol=1e-6, atol=1e-9):
            return choice
    raise ModelError(
        f"{name}: the transform of {parameter!r} is none of this package's links. Give em.Real(spread=...) instead, "
        "and it is shown in Gaussian space; the objective transforms it as before."
    )
