"""A fit as ArviZ InferenceData, and as a netCDF file.

Groups: ``posterior`` (draws), ``fit`` (what the algorithm found, mean vector and covariance matrix named as pymc-extras
names those of a Laplace fit, with a leading subject dim), ``log_likelihood``, ``sample_stats``, ``observed_data``,
``constant_data``. Variables of the posterior: each parameter by its own name, (subject), natural space; ``gaussian``
(subject, parameter); ``group_mean`` and ``group_sd`` (parameter), Gaussian space; ``group_median`` (parameter), natural
space; with a full covariance ``group_correlation`` (parameter, parameter_2).
"""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from em_ppl import compat
from em_ppl.data import label_array
from em_ppl.model import SubjectModel
from em_ppl.parameters import Parameter
from em_ppl.progress import Progress

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["load", "save", "to_inference_data"]

FORMAT = 1  # of the file; raised when `load` could no longer read an older one


def to_inference_data(
    fit: Fit, *, draws: int, chains: int, random_seed: int | None, log_likelihood: bool, progressbar: bool
) -> Any:
    """See `Fit.to_inference_data`."""
    for name, number in {"draws": draws, "chains": chains}.items():
        if not isinstance(number, numbers.Integral) or number < 1:
            raise ValueError(f"{name}={number!r} must be a whole number, at least 1.")
    if log_likelihood and fit.model is None:
        raise ValueError(
            "this fit was loaded without its model, so no trial's log-likelihood can be computed: "
            "load it by em.load(path, model=...), or say log_likelihood=False."
        )
    seed = fit.settings["random_seed"] if random_seed is None else random_seed
    generator = np.random.default_rng(seed)
    sample = {"chain": np.arange(chains), "draw": np.arange(draws)}
    gaussian = _draw_subjects(fit, (chains, draws), generator)
    groups = _lasting_groups(fit)
    groups["posterior"] = _posterior(fit, gaussian, sample, generator)
    groups["sample_stats"] = _sample_stats(fit, gaussian, sample)
    if log_likelihood:
        with Progress(show=progressbar) as progress:
            groups["log_likelihood"] = _log_likelihood(fit, gaussian, sample, progress)
    return compat.make_inference_data(groups, _attributes(fit))


# --- draws --------------------------------------------------------------------------------------------------------


def _draw_subjects(fit: Fit, size: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw from every subject's Laplace approximation, (chain, draw, subject, parameter), Gaussian space."""
    mean = fit.subjects["posterior_mean"].values
    factor = np.linalg.cholesky(fit.subjects["laplace_covariance"].values)
    noise = generator.standard_normal((*size, *mean.shape))
    return np.asarray(mean + np.einsum("nij,cdnj->cdni", factor, noise))


def _posterior(
    fit: Fit, gaussian: NDArray[np.float64], sample: Mapping[str, Any], generator: np.random.Generator
) -> xr.Dataset:
    chain_draw, names = ("chain", "draw"), list(fit.parameters)
    variables: dict[str, Any] = {
        name: ((*chain_draw, "subject"), parameter.to_natural(gaussian[..., k]))
        for k, (name, parameter) in enumerate(fit.parameters.items())
    }
    groups = _draw_groups(fit, gaussian.shape[:2], generator)
    by_parameter = (*chain_draw, "parameter")
    median = np.stack([p.to_natural(groups["mean"][..., k]) for k, p in enumerate(fit.parameters.values())], axis=-1)
    variables |= {
        "gaussian": ((*chain_draw, "subject", "parameter"), gaussian),
        "group_mean": (by_parameter, groups["mean"]),
        "group_sd": (by_parameter, groups["sd"]),
        "group_median": (by_parameter, median),
    }
    coords = {**sample, "subject": fit.subjects["subject"].values, "parameter": names}
    if fit.group.structure == "full":
        variables["group_correlation"] = ((*by_parameter, "parameter_2"), groups["correlation"])
        coords["parameter_2"] = names
    return xr.Dataset(variables, coords=coords)


def _draw_groups(fit: Fit, size: tuple[int, ...], generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Draw the group from the Normal approximation of its free numbers; one that has none stays at its estimate."""
    estimate, error = fit.group.free.values, fit.group.free_covariance.values
    known = np.isfinite(np.diag(error))
    vectors = np.tile(estimate, (*size, 1))
    noise = generator.standard_normal((*size, known.sum()))
    vectors[..., known] += noise @ np.linalg.cholesky(error[np.ix_(known, known)]).T
    one = np.ones(len(fit.parameters))
    groups = [fit.group.plain.from_vector(vector, one) for vector in vectors.reshape(-1, len(estimate))]
    covariance = np.array([g.covariance for g in groups]).reshape(*size, len(one), len(one))
    sd = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return {
        "mean": np.array([g.mean for g in groups]).reshape(*size, len(one)),
        "sd": sd,
        "correlation": covariance / (sd[..., :, None] * sd[..., None, :]),
    }


def _sample_stats(fit: Fit, gaussian: NDArray[np.float64], sample: Mapping[str, Any]) -> xr.Dataset:
    """Log density of each draw under the approximation it came from."""
    away = gaussian - fit.subjects["posterior_mean"].values
    covariance = fit.subjects["laplace_covariance"].values
    solved = np.einsum("nij,cdnj->cdni", np.linalg.inv(covariance), away)
    log_density = -0.5 * ((away * solved).sum(-1) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    coords = {**sample, "subject": fit.subjects["subject"].values}
    return xr.Dataset({"log_q": (("chain", "draw", "subject"), log_density)}, coords=coords)


def _log_likelihood(
    fit: Fit, gaussian: NDArray[np.float64], sample: Mapping[str, Any], progress: Progress
) -> xr.Dataset:
    """Log-likelihood of every response and draw.

    Where every subject has every trial the dims are (chain, draw, subject, trial); else only the responses that
    exist are listed, along ``<name>_response`` with their subject and trial as coordinates, since ArviZ knows no gaps.
    """
    assert fit.model is not None
    progress.say("compiling the log-likelihood of every trial")
    compiled = fit.model.compile(fit.data)
    chains, draws = gaussian.shape[:2]
    terms: dict[str, list[Any]] = {}
    for number, x in enumerate(gaussian.reshape(-1, *gaussian.shape[2:]), start=1):
        for name, values in compiled.pointwise_log_likelihood(x).items():
            present = compiled.subjects.present[name]
            terms.setdefault(name, []).append(values if present.all() else values[present])
        progress.say(f"log-likelihood of draw {number} of {chains * draws}")
    variables = {}
    for name, rows in terms.items():
        array = _unsettle(np.array(rows)).reshape(chains, draws, *np.shape(rows[0]))
        present = compiled.subjects.present[name]
        places = [fit.data[dim].values for dim in ("subject", "trial")[: present.ndim]]
        if present.all():
            own = ("subject", "trial")[: present.ndim]
            coords: dict[str, Any] = dict(zip(own, places, strict=True))
        else:
            own = (f"{name}_response",)
            coords = {
                f"{name}_{dim}": (own[0], labels[index])
                for dim, labels, index in zip(("subject", "trial"), places, np.nonzero(present), strict=False)
            }
        further = tuple(f"{name}_dim_{i}" for i in range(array.ndim - 2 - len(own)))
        variables[name] = xr.DataArray(array, dims=("chain", "draw", *own, *further), coords={**sample, **coords})
    return xr.Dataset(variables)


def _unsettle(log_likelihood: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add noise of 1e-12 to values that are equal in all draws, as a learner's first trial is.

    ArviZ 1 ends with an error where a trial has no tail to smooth, and ArviZ 0.23 calls such a trial very bad.
    """
    constant = np.asarray(log_likelihood.min(axis=0) == log_likelihood.max(axis=0))
    noise = np.random.default_rng(0).standard_normal((log_likelihood.shape[0], 1))
    log_likelihood[:, constant] += 1e-12 * noise
    return log_likelihood


# --- what lasts: the fit itself -----------------------------------------------------------------------------------

# pymc-extras' names of a Laplace fit's variables and dims, and ours
VARIABLES = {"mean_vector": "posterior_mean", "covariance_matrix": "laplace_covariance"}
DIMS = {"rows": "parameter", "columns": "parameter_2"}
GROUP = ("mean", "covariance", "free", "free_covariance")


def _lasting_groups(fit: Fit) -> dict[str, xr.Dataset]:
    observed = fit.settings["observed"]
    constant = [name for name in fit.data.data_vars if name not in observed]
    groups = {"fit": _pack(fit), "observed_data": fit.data[observed]}
    return groups | ({"constant_data": fit.data[constant]} if constant else {})


def _pack(fit: Fit) -> xr.Dataset:
    """Put subjects, group and history into one Dataset."""
    group = {f"group_{name}": getattr(fit.group, name) for name in GROUP}
    history = {f"iteration_{name}": variable for name, variable in fit.history.data_vars.items()}
    dataset = fit.subjects.assign(group).assign(history)
    for theirs, ours in VARIABLES.items():
        variable = dataset[ours].rename({mine: dim for dim, mine in DIMS.items() if mine in dataset[ours].dims})
        dataset = dataset.drop_vars(ours).assign({theirs: variable})
    return dataset


def _unpack(dataset: xr.Dataset) -> tuple[xr.Dataset, dict[str, xr.DataArray], xr.Dataset]:
    """Undo `_pack`: subjects, group, history."""
    for theirs, ours in VARIABLES.items():
        variable = dataset[theirs].rename({dim: mine for dim, mine in DIMS.items() if dim in dataset[theirs].dims})
        dataset = dataset.drop_vars(theirs).assign({ours: variable})

    def having(dim: str, prefix: str = "") -> xr.Dataset:
        own = {str(n): str(n).removeprefix(prefix) for n, v in dataset.data_vars.items() if dim in v.dims}
        return dataset[list(own)].rename(own)

    group = {name: dataset[f"group_{name}"].rename(name) for name in GROUP}
    return having("subject"), group, having("iteration", "iteration_")


def _attributes(fit: Fit) -> dict[str, Any]:
    ours: dict[str, Any] = {"parameters": {k: asdict(p) for k, p in fit.parameters.items()}, "settings": fit.settings}
    ours |= {"columns": list(fit.data.data_vars), "structure": fit.group.structure, "format": FORMAT}
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "em_ppl",
        "inference_library_version": version("em_ppl"),
        "inference_method": f"em_{fit.settings['estimator']}",
        "sampling_time": fit.settings["seconds"],
        "em_ppl": json.dumps(ours),
    }


def save(fit: Fit, path: str | os.PathLike[str]) -> Path:
    """See `Fit.save`."""
    groups = {name: _labels_to_text(group) for name, group in _lasting_groups(fit).items()}
    return compat.write_netcdf(compat.make_inference_data(groups, _attributes(fit)), path)


def _labels_to_text(dataset: xr.Dataset) -> xr.Dataset:
    """NetCDF holds numbers and text: subject labels that are neither become JSON."""
    labels = dataset["subject"].values
    if labels.dtype.kind != "O" or all(isinstance(label, str) for label in labels):
        return dataset
    try:
        text = [json.dumps(label) for label in labels]
    except TypeError as error:
        raise ValueError(f"subject labels cannot be saved ({error}): give subjects numbers or names.") from error
    return dataset.assign_coords(subject=("subject", text, {"written_as": "json"}))


def _labels_from_text(dataset: xr.Dataset) -> xr.Dataset:
    if dataset["subject"].attrs.get("written_as") != "json":
        return dataset
    labels = [json.loads(text) for text in dataset["subject"].values]
    labels = [tuple(label) if isinstance(label, list) else label for label in labels]
    return dataset.assign_coords(subject=label_array(labels))


def load(path: str | os.PathLike[str], *, model: SubjectModel | None = None) -> Fit:
    """Load a fit that `Fit.save` saved, or that is in a saved InferenceData of `Fit.to_inference_data`.

    Parameters
    ----------
    path : path
        A netCDF file.
    model : SubjectModel, optional
        The model that was fitted. A file holds numbers, never code: without the model the fit shows and converts
        itself, but can compute no further likelihood.

    Returns
    -------
    Fit
        With the same bits.

    Raises
    ------
    OSError
        If there is no such file, or it is no netCDF.
    TypeError
        If `model` is no subject model.
    ValueError
        If the file holds no fit of this package, is of a newer format, or the model's parameters or columns are
        others.

    Examples
    --------
    >>> import em_ppl as em
    >>> fit = em.load("fit.nc")  # doctest: +SKIP
    """
    from em_ppl.result import Fit, GroupEstimate

    if model is not None and not isinstance(model, SubjectModel):
        raise TypeError(f"{model!r} is no subject model: decorate its likelihood with @em.subject_model(...).")
    try:
        idata = compat.read_netcdf(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise OSError(f"{path} cannot be read as netCDF: {error}") from error
    found, observed = compat.read_group(idata, "fit"), compat.read_group(idata, "observed_data")
    if found is None or observed is None or "em_ppl" not in idata.attrs:
        raise ValueError(
            f"{path} holds no fit of em_ppl: it needs groups 'fit' and 'observed_data', and our attributes."
        )
    ours = json.loads(idata.attrs["em_ppl"])
    if ours["format"] > FORMAT:
        raise ValueError(f"{path} was written by a newer em_ppl: update the package.")
    parameters = {name: Parameter(**values) for name, values in ours["parameters"].items()}
    if model is not None and model.parameters != parameters:
        raise ValueError(f"{path} holds a fit of other parameters than {model!r}: {', '.join(parameters)}.")
    if model is not None and set(model.columns) != set(ours["columns"]):
        raise ValueError(f"{path} holds a fit to other columns than {model!r} reads: {', '.join(ours['columns'])}.")

    subjects, group, history = _unpack(_labels_from_text(found))
    parts = [observed, compat.read_group(idata, "constant_data")]
    data = [_labels_from_text(part) for part in parts if part is not None]
    return Fit(
        group=GroupEstimate(**group, structure=ours["structure"]),
        subjects=subjects,
        history=history,
        parameters=parameters,
        data=xr.merge(data, join="exact", compat="no_conflicts")[ours["columns"]],
        settings=ours["settings"],
        model=model,
    )
