"""A fit as ArviZ InferenceData, and as a netCDF file.

Groups: ``posterior`` (draws), ``fit`` (what the algorithm found, mean vector and covariance matrix named as pymc-extras
names those of a Laplace fit, with a leading subject dim), ``log_likelihood``, ``sample_stats``, ``observed_data``,
``constant_data``. Variables of the posterior: each parameter by its own name, (subject), natural space, a shared one
without subject; ``gaussian`` (subject, parameter); ``group_mean`` and ``group_sd`` (parameter), Gaussian space;
``group_median`` (parameter), natural space; with a full covariance ``group_correlation`` (parameter, parameter_2); with
covariates ``group_coefficients`` (coefficient). Besides, what is free in ``fit.hierarchical_model()``, such as
``<name>_offset``, so that PyMC can predict from these draws as from its own.
"""

from __future__ import annotations

import json
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
from em_ppl.checks import check_choices, check_counts
from em_ppl.data import label_array
from em_ppl.design import Design, make_group_model, people_table
from em_ppl.distributions import Laplace, Normal, StudentT
from em_ppl.estimators import ImportanceSampling, Quadrature
from em_ppl.group import Group, GroupPrior, HyperPrior, Structure
from em_ppl.group_estimate import GroupEstimate
from em_ppl.model import SubjectModel, check_subject_model
from em_ppl.parameters import Parameter
from em_ppl.progress import Progress
from em_ppl.pymc_models import PyMCModel
from em_ppl.translation import free_names, free_values

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["load", "save", "to_inference_data"]

LOG_HALF_NORMAL_SD = np.pi / np.sqrt(8)  # of the log of a HalfNormal variable
FORMAT = 3  # of the file; raised when `load` can no longer read an older one


def to_inference_data(
    fit: Fit, *, draws: int, chains: int, random_seed: int | None, log_likelihood: bool, progressbar: bool
) -> Any:
    """See `Fit.to_inference_data`."""
    check_counts(draws=draws, chains=chains)
    if log_likelihood and fit.model is None:
        raise ValueError(
            "this fit was loaded without its model, so no trial's log-likelihood can be computed: "
            "load it by em.load(path, model=...), or say log_likelihood=False."
        )
    seed = fit.settings["random_seed"] if random_seed is None else random_seed
    generator = np.random.default_rng(seed)
    sample = {"chain": np.arange(chains), "draw": np.arange(draws)}
    drawn = draw_groups(fit, chains * draws, generator)
    gaussian, log_density = draw_subjects(fit, drawn, generator)
    groups = _lasting_groups(fit)
    groups["posterior"] = _posterior(fit, gaussian, drawn, sample)
    log_q = (("chain", "draw", "subject"), log_density.reshape(chains, draws, -1))
    coords = {**sample, "subject": fit.subjects["subject"].values}
    groups["sample_stats"] = xr.Dataset({"log_q": log_q}, coords=coords)
    if log_likelihood:
        with Progress(show=progressbar) as progress:
            groups["log_likelihood"] = log_likelihood_of(fit, groups["posterior"], progress)
    return compat.make_inference_data(groups, _attributes(fit))


# --- draws --------------------------------------------------------------------------------------------------------


def draw_groups(fit: Fit, n: int, generator: np.random.Generator) -> list[Group]:
    """Draw groups from the Normal approximation of the free numbers; one that has none stays at its estimate.

    The sampling distribution of an SD near 0 reaches over many powers of ten. Its log is drawn no wider than were there
    no data: as from a HalfNormal.
    """
    group, estimate, error = fit.group.plain, fit.group.free.values, fit.group.free_covariance.values
    known = np.isfinite(np.diag(error))
    precision = np.linalg.inv(error[np.ix_(known, known)])
    is_log_sd = np.zeros(len(estimate), dtype=bool)
    is_log_sd[len(group.coefficients) :][: group.sd.size] = True
    precision += np.diag(is_log_sd[known] / LOG_HALF_NORMAL_SD**2)
    root = np.linalg.cholesky(np.linalg.inv(precision))
    vectors = np.tile(estimate, (n, 1))
    vectors[:, known] += generator.standard_normal((n, known.sum())) @ root.T
    return [group.from_vector(vector) for vector in vectors]


def draw_subjects(
    fit: Fit, groups: list[Group], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw every subject's parameters GIVEN each drawn group, (draw, subject, parameter), and their log density.

    A subject's trials are summarised by the Normal likelihood that, together with the estimated group, gives its
    posterior mean and covariance; under another group the posterior is the Normal that this likelihood gives there.
    """
    trials, weights = _normal_likelihoods(fit), _weights(fit)
    drawn, log_density = [], []
    for group in groups:
        mean, root = _normal_posteriors(group, *trials, weights)
        noise = generator.standard_normal(mean.shape)
        drawn.append(mean + np.einsum("nij,nj->ni", root, noise))
        log_density.append(-0.5 * (noise**2 + np.log(2 * np.pi)).sum(1) - np.linalg.slogdet(root)[1])
    return np.array(drawn), np.array(log_density)


def _weights(fit: Fit) -> NDArray[np.float64]:
    """How many times a Normal group's precision a subject feels: less, far out in the tails; (subject, parameter)."""
    distribution = fit.group.plain.model.distribution
    if not distribution.heavy_tails:
        return np.ones(fit.subjects["mode"].shape)
    if distribution.smooth:
        return fit.subjects["weight"].values
    return np.diagonal(distribution.curvature(fit.subjects["mode"].values, False), axis1=1, axis2=2)


def _normal_likelihoods(fit: Fit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision of each subject's trials, and precision times centre; the precision need not be positive."""
    group, root_weight = fit.group.plain, np.sqrt(_weights(fit))
    prior = group.precision[group.model.level] * root_weight[:, :, None] * root_weight[:, None, :]
    precision = np.linalg.inv(fit.subjects["posterior_covariance"].values)
    pulled = np.einsum("nij,nj->ni", precision, fit.subjects["posterior_mean"].values)
    return precision - prior, pulled - np.einsum("nij,nj->ni", prior, group.location)


def _normal_posteriors(
    group: Group, precision: NDArray[np.float64], pulled: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and a root of the covariance of every subject under a group.

    In the space where the group is standard; a direction in which the precision is not positive takes the group's own,
    as in the Laplace approximation.
    """
    factor = group.factor() / np.sqrt(weight)[:, :, None]
    z_precision = np.eye(factor.shape[-1]) + factor.transpose(0, 2, 1) @ precision @ factor
    values, vectors = np.linalg.eigh(z_precision)
    vectors = vectors / np.sqrt(np.where(values < 1e-8, 1.0, values))[:, None, :]
    towards = pulled - np.einsum("nij,nj->ni", precision, group.location)
    pulled_z = np.einsum("nlk,nl->nk", factor, towards)
    z = np.einsum("nij,nj->ni", vectors, np.einsum("nkj,nk->nj", vectors, pulled_z))
    return group.location + np.einsum("nij,nj->ni", factor, z), factor @ vectors


def _posterior(fit: Fit, gaussian: NDArray[np.float64], groups: list[Group], sample: Mapping[str, Any]) -> xr.Dataset:
    """Label the draws."""
    size, names, estimate = tuple(map(len, sample.values())), fit.group.varying, fit.group

    def put(values: Any, *dims: str) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        array = np.asarray(values)
        return (*sample, *dims), array.reshape(*size, *array.shape[1:])

    mean = np.array([group.location.mean(0) for group in groups])
    shared = np.array([group.shared for group in groups])
    by = () if estimate.design.by is None else (estimate.design.by,)
    sd = np.array([group.sd if by else group.sd[0] for group in groups])
    median = np.column_stack([fit.parameters[name].to_natural(mean[:, k]) for k, name in enumerate(names)])
    coords = {**sample, "subject": fit.subjects["subject"].values, "parameter": names}
    variables: dict[str, Any] = {}
    for name, parameter in fit.parameters.items():
        if parameter.shared:
            variables[name] = put(parameter.to_natural(shared[:, estimate.shared_names.index(name)]))
        else:
            variables[name] = put(parameter.to_natural(gaussian[..., names.index(name)]), "subject")
    variables |= {
        "gaussian": put(gaussian, "subject", "parameter"),
        "group_mean": put(mean, "parameter"),
        "group_sd": put(sd, *by, "parameter"),
        "group_median": put(median, "parameter"),
    }
    if by:
        coords[by[0]] = estimate.design.levels
    if estimate.plain.model.structure == "full":
        covariance = np.array([group.covariances if by else group.covariances[0] for group in groups])
        correlation = covariance / (sd[..., :, None] * sd[..., None, :])
        variables["group_correlation"] = put(correlation, *by, "parameter", "parameter_2")
        coords["parameter_2"] = names
    if estimate.design.has_covariates:
        variables["group_coefficients"] = put([group.coefficients for group in groups], "coefficient")
        coords["coefficient"] = estimate.design.labels
    free = [free_values(fit, group, own) for group, own in zip(groups, gaussian, strict=True)]
    for name in free_names(fit):
        if isinstance(fit.model, PyMCModel):  # its own names and dims, also of what a fit calls by another
            dims = fit.model.dims(name)
            coords |= {dim: list(fit.model.pymc.coords[dim]) for dim in dims if dim in fit.model.pymc.coords}
        elif name in variables:
            continue
        else:
            dims = (f"{name}_dim_0",) if name.startswith("group_cholesky") else ("subject",)
        values = np.array([values[name] for values in free])
        variables[name] = put(values, *dims[: values.ndim - 1])
    return xr.Dataset(variables, coords=coords)


def log_likelihood_of(fit: Fit, posterior: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Log-likelihood of every response and draw of a posterior, the fit's own or a sampled one.

    Where every subject has every trial the dims are (chain, draw, subject, trial); else only the responses that
    exist are listed, along ``<name>_response`` with their subject and trial as coordinates, since ArviZ knows no gaps.
    """
    sample = {dim: posterior[dim].values for dim in ("chain", "draw")}
    draws = every_parameter(fit, posterior)
    progress.say("compiling the log-likelihood of every trial")
    compiled = fit.compiled
    terms: dict[str, list[Any]] = {}
    for number, x in enumerate(draws, start=1):
        for name, values in compiled.pointwise_log_likelihood(x).items():
            present = compiled.subjects.present[name]
            terms.setdefault(name, []).append(values if present.all() else values[present])
        progress.say(f"log-likelihood of draw {number} of {len(draws)}")
    variables = {}
    for name, rows in terms.items():
        array = _unsettle(np.array(rows)).reshape(*map(len, sample.values()), *np.shape(rows[0]))
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


def every_parameter(fit: Fit, posterior: xr.Dataset) -> NDArray[np.float64]:
    """All declared parameters of every draw, (draw, subject, declared parameter), Gaussian space."""
    gaussian = posterior["gaussian"].transpose("chain", "draw", "subject", "parameter")
    own = {str(name): gaussian.sel(parameter=name).values for name in gaussian["parameter"].values}
    for name, parameter in fit.parameters.items():
        if parameter.shared:
            known = f"{name}_gaussian" in posterior
            own_space = posterior[f"{name}_gaussian" if known else name].transpose("chain", "draw").values
            x = own_space if known else parameter.to_gaussian(own_space)
            own[name] = np.broadcast_to(x[..., None], gaussian.shape[:3])
    x = np.stack([own[name] for name in fit.parameters], axis=-1)
    return np.asarray(x.reshape(-1, *x.shape[2:]))


def _unsettle(log_likelihood: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add noise of 1e-12 to values that are equal in all draws (but for rounding), as a learner's first trial is.

    ArviZ 1 ends with an error where a trial has no tail to smooth, and ArviZ 0.23 calls such a trial very bad.
    """
    constant = np.asarray(np.ptp(log_likelihood, axis=0) < 1e-12)
    noise = np.random.default_rng(0).standard_normal((log_likelihood.shape[0], 1))
    log_likelihood[:, constant] += 1e-12 * noise
    return log_likelihood


# --- what lasts: the fit itself -----------------------------------------------------------------------------------

# pymc-extras' names of a Laplace fit's variables and dims, and ours
VARIABLES = {"mean_vector": "posterior_mean", "covariance_matrix": "laplace_covariance"}
DIMS = {"rows": "parameter", "columns": "parameter_2"}
GROUP = {
    "coefficients": ("coefficient",),
    "covariances": ("level", "parameter", "parameter_2"),
    "shared": ("shared_parameter",),
}
DISTRIBUTIONS = {kind.__name__: kind for kind in (Normal, StudentT, Laplace)}
SETTINGS = {
    "model",
    "estimator",
    "observed",
    "distance_to_exact",
    "status",
    "tol",
    "random_seed",
    "seconds",
    "compile_seconds",
}
INTEGRATIONS = {kind.__name__: kind for kind in (Quadrature, ImportanceSampling)}


def _lasting_groups(fit: Fit) -> dict[str, xr.Dataset]:
    observed = fit.settings["observed"]
    constant = [name for name in fit.data.data_vars if name not in observed]
    groups = {"fit": _pack(fit), "observed_data": fit.data.drop_vars(constant)}
    return groups | ({"constant_data": fit.data[constant]} if constant else {})


def _pack(fit: Fit) -> xr.Dataset:
    """Put subjects, group, covariates and history into one Dataset."""
    group: dict[str, Any] = {f"group_{name}": (dims, getattr(fit.group.plain, name)) for name, dims in GROUP.items()}
    group["group_unit"] = ("declared_parameter", fit.group.plain.model.unit)
    people = fit.group.design.people
    covariates = {f"covariate_{name}": ("subject", _plain(people[name])) for name in people}
    history = {f"iteration_{name}": variable for name, variable in fit.history.data_vars.items()}
    dataset = fit.subjects.assign(group).assign(covariates).assign(history)
    dataset = dataset.assign(information=fit.information, group_free_covariance=fit.group.free_covariance)
    for theirs, ours in VARIABLES.items():
        variable = dataset[ours].rename({mine: dim for dim, mine in DIMS.items() if mine in dataset[ours].dims})
        dataset = dataset.drop_vars(ours).assign({theirs: variable})
    return dataset


def _plain(column: Any) -> NDArray[Any]:
    """Covariates as numbers, or text where they are none."""
    values = column.to_numpy()
    return values if values.dtype.kind in "biuf" else values.astype(object)


def _unpack(dataset: xr.Dataset) -> xr.Dataset:
    """Undo the renaming of `_pack`."""
    for theirs, ours in VARIABLES.items():
        variable = dataset[theirs].rename({dim: mine for dim, mine in DIMS.items() if dim in dataset[theirs].dims})
        dataset = dataset.drop_vars(theirs).assign({ours: variable})
    return dataset


def _having(dataset: xr.Dataset, dim: str, prefix: str = "", without: tuple[str, ...] = ()) -> xr.Dataset:
    """Select the variables that have a dim and a prefix, and drop the prefix."""
    own = {
        str(name): str(name).removeprefix(prefix)
        for name, variable in dataset.data_vars.items()
        if dim in variable.dims and str(name).startswith(prefix) and not str(name).startswith(without)
    }
    return dataset[list(own)].rename(own)


def _group_from(
    dataset: xr.Dataset, ours: Mapping[str, Any], parameters: dict[str, Parameter], own_prior: HyperPrior | None
) -> GroupEstimate:
    """Make the group again that `_pack` and `_attributes` wrote."""
    covariates = _having(dataset, "subject", "covariate_")
    columns = {str(name): column.values for name, column in covariates.items()}
    people = people_table(columns, dataset["subject"].values)
    design = Design(ours["formulas"], ours["covariance_by"], people)
    distribution = DISTRIBUTIONS[ours["distribution"]["kind"]](**ours["distribution"]["settings"])
    prior: GroupPrior | HyperPrior | None = None
    if isinstance(ours["prior"], dict):
        prior = GroupPrior(**ours["prior"])
    elif ours["prior"] == repr(own_prior):  # a PyMC model's, which no file holds
        prior = own_prior
    model = make_group_model(design, parameters, dataset["group_unit"].values, ours["structure"], distribution, prior)
    group = Group(model, *(dataset[f"group_{name}"].values for name in GROUP))
    free_covariance = dataset["group_free_covariance"].rename(None)
    return GroupEstimate(group, design, parameters, free_covariance)


def _attributes(fit: Fit) -> dict[str, Any]:
    model, design = fit.group.plain.model, fit.group.design
    ours: dict[str, Any] = {
        "format": FORMAT,
        "parameters": {k: asdict(p) for k, p in fit.parameters.items()},
        "settings": fit.settings,
        "columns": list(fit.data.data_vars),
        "structure": model.structure,
        "distribution": {"kind": type(model.distribution).__name__, "settings": vars(model.distribution)},
        "prior": asdict(model.prior) if isinstance(model.prior, GroupPrior) else repr(model.prior),
        "integration": {"kind": type(fit.integration).__name__, "settings": asdict(fit.integration)},
        "formulas": design.formulas,
        "covariance_by": design.by,
    }
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
    groups = {name: _with_checksums(_labels_to_text(group)) for name, group in _lasting_groups(fit).items()}
    return compat.write_netcdf(groups, _attributes(fit), path)


def _with_checksums(dataset: xr.Dataset) -> xr.Dataset:
    """Let HDF5 notice when numbers are read that are not those that were written."""
    dataset = dataset.copy()
    for variable in dataset.variables.values():
        if variable.dtype.kind in "biuf" and variable.ndim and variable.size:
            variable.encoding = {"fletcher32": True}
    return dataset


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


def load(path: str | os.PathLike[str], *, model: SubjectModel | PyMCModel | None = None) -> Fit:
    """Load a fit that `Fit.save` saved, or that is in a saved InferenceData of `Fit.to_inference_data`.

    Parameters
    ----------
    path : path
        A netCDF file.
    model : SubjectModel or PyMCModel, optional
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
    if model is not None and not isinstance(model, PyMCModel):
        check_subject_model(model)
    idata = _read(path)
    found = compat.read_group(idata, "fit")
    data = [compat.read_group(idata, name) for name in ("observed_data", "constant_data")]
    parts = [part for part in data if part is not None]  # one may be empty
    if found is None or not parts or "em_ppl" not in idata.attrs:
        raise ValueError(f"{path} holds no fit of em_ppl: it needs groups 'fit' and of data, and our attributes.")
    try:
        ours = json.loads(idata.attrs["em_ppl"])
        version_of_file = int(ours["format"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} holds no fit of em_ppl: its attributes are others.") from error
    if version_of_file != FORMAT:
        newer = version_of_file > FORMAT
        raise ValueError(
            f"{path} was written by {'a newer em_ppl: update the package' if newer else 'an older em_ppl: fit again'}."
        )
    try:
        fit = _fit_from(found, parts, ours, model)
        _check_whole(fit)
    except Exception as error:  # of a file that is damaged, or was made by others, anything may be wrong
        raise ValueError(f"{path} holds a fit that is damaged: {type(error).__name__}: {error}") from error
    if model is not None and model.parameters != fit.parameters:
        raise ValueError(f"{path} holds a fit of other parameters than {model!r}: {', '.join(fit.parameters)}.")
    if model is not None and set(model.columns) != set(ours["columns"]):
        raise ValueError(f"{path} holds a fit to other columns than {model!r} reads: {', '.join(ours['columns'])}.")
    return fit


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        return compat.read_netcdf(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # HDF5's libraries raise one thing or another
        raise OSError(f"{path} cannot be read as netCDF: {error}") from error


def _fit_from(
    found: xr.Dataset, parts: list[xr.Dataset], ours: Mapping[str, Any], model: SubjectModel | PyMCModel | None
) -> Fit:
    from em_ppl.result import Fit

    found, integration = _unpack(_labels_from_text(found)), ours["integration"]
    parameters = {name: Parameter(**values) for name, values in ours["parameters"].items()}
    data = xr.merge([_labels_from_text(part) for part in parts], join="exact", compat="no_conflicts")
    return Fit(
        group=_group_from(found, ours, parameters, model.prior if isinstance(model, PyMCModel) else None),
        subjects=_having(found, "subject", without=("covariate_", "information")).drop_dims("free", errors="ignore"),
        history=_having(found, "iteration", "iteration_"),
        parameters=parameters,
        data=data[ours["columns"]],
        information=found["information"].rename(None),
        settings=ours["settings"],
        integration=INTEGRATIONS[integration["kind"]](**integration["settings"]),
        model=model,
    )


def _check_whole(fit: Fit) -> None:
    """Raise an error where the parts of a fit are not of one size, or its group is none."""
    group, design = fit.group.plain, fit.group.design
    check_choices(structure=(group.model.structure, Structure))
    levels, p = group.model.n_levels, len(group.model.varying)
    expected = {
        "coefficients": (group.coefficients.shape, (len(design.labels),)),
        "covariances": (group.covariances.shape, (levels, p, p)),
        "shared parameters": (group.shared.shape, (len(group.model.shared),)),
        "units": (group.model.unit.shape, (len(fit.parameters),)),
        "labels of free numbers": (tuple(fit.group.free["free"].values), tuple(fit.information["free"].values)),
        "parameters": (tuple(fit.subjects["parameter"].values), tuple(fit.group.varying)),
        "subjects": (tuple(fit.subjects["subject"].values), tuple(fit.data["subject"].values)),
        "iterations": (fit.history["log_evidence"].shape, fit.history["change"].shape),
    }
    for what, (here, there) in expected.items():
        if here != there:
            raise ValueError(f"{what} {here} where {there} should be")
    if not np.isfinite(group.to_vector()).all():
        raise ValueError("its group is not finite")
    missing = SETTINGS - set(fit.settings)
    if missing:
        raise ValueError(f"settings lack {', '.join(sorted(missing))}")
