"""The one place that knows that ArviZ 0.23 (Python 3.11) and ArviZ 1 (Python 3.12 and later) differ."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from em_ppl.files import replacing

IS_TREE = int(version("arviz").split(".")[0]) >= 1
"""Whether InferenceData is `xarray.DataTree` (ArviZ 1) or `arviz.InferenceData` (ArviZ 0.23)."""

OVERHEAD = 200_000  # bytes of a file besides its numbers, at most


def arviz() -> Any:
    """Import ArviZ where it is needed: that takes longer than to import PyMC."""
    with warnings.catch_warnings():
        # ArviZ 0.23 announces ArviZ 1 at every import
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        import arviz

    return arviz


if not IS_TREE:
    arviz()  # PyMC 5 imports it anyway: here it does so quietly


def make_inference_data(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> Any:
    """Put named Datasets into the container of the ArviZ at hand."""
    if IS_TREE:
        tree = xr.DataTree.from_dict(dict(groups))
        tree.attrs.update(attrs)
        return tree
    return arviz().InferenceData(attrs=dict(attrs), warn_on_custom_groups=False, **groups)


def read_group(idata: Any, name: str) -> xr.Dataset | None:
    """Return one group as a Dataset, None if there is none."""
    group = idata.children.get(name) if IS_TREE else getattr(idata, name, None)
    return None if group is None else getattr(group, "dataset", group)


def add_group(idata: Any, name: str, dataset: xr.Dataset) -> Any:
    """Put one more group into the container, in place of one of that name."""
    if IS_TREE:
        idata[name] = xr.DataTree(dataset)
    else:
        if name in idata.groups():
            del idata[name]
        idata.add_groups({name: dataset})
    return idata


def write_netcdf(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write all or nothing."""
    with replacing(path, OVERHEAD + sum(group.nbytes for group in groups.values())) as part:
        make_inference_data(groups, attrs).to_netcdf(str(part), engine="h5netcdf")
    return Path(path)


def read_netcdf(path: str | os.PathLike[str]) -> Any:
    """Read a whole file into memory, and close it."""
    if IS_TREE:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()
    with arviz().rc_context({"data.load": "eager"}):
        return arviz().InferenceData.from_netcdf(str(path), engine="h5netcdf")


def plot_forest(models: Mapping[str, Any], var_names: list[str]) -> Any:
    """Draw ArviZ's forest of several models, and return its matplotlib figure."""
    from matplotlib import pyplot

    if IS_TREE:
        plot = arviz().plot_forest(dict(models), var_names=var_names, combined=True, backend="matplotlib")
        plot.add_legend("model")
        figure = plot.viz["figure"].item()
    else:
        axes = arviz().plot_forest(list(models.values()), model_names=list(models), var_names=var_names, combined=True)
        figure = axes[0].figure
        figure.set_layout_engine("tight")
    pyplot.close(figure)  # a notebook shows what is returned; pyplot would show it a second time
    return figure


def pareto_smooth(log_weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pareto-smooth the importance weights of each row, (subject, draw): log weights on the same scale, and k-hat.

    Where the tail reaches further than ArviZ can fit, one weight is all there is: they stay as they are, k-hat is inf.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if IS_TREE:
            from arviz_stats.base import array_stats

            smoothed, k = array_stats.psislw(-log_weights, axis=-1)  # it takes log-likelihoods that are to be left out
        else:
            smoothed, k = arviz().psislw(log_weights)
    smoothed, k = np.asarray(smoothed), np.asarray(k)
    failed = np.isnan(smoothed).any(1) | np.isnan(k)
    smoothed, k = np.where(failed[:, None], log_weights, smoothed), np.where(failed, np.inf, k)
    # ArviZ normalises; the smallest weight is never smoothed, and tells by how much
    rows, smallest = np.arange(len(log_weights)), np.where(np.isfinite(log_weights), log_weights, np.inf).argmin(1)
    scale = log_weights[rows, smallest] - smoothed[rows, smallest]
    return smoothed + scale[:, None], k


def loo_of_responses(idata: Any, name: str) -> tuple[xr.DataArray, int]:
    """PSIS-LOO: log predictive density of every response of a variable, and how many have too large a Pareto k-hat."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimated shape parameter", UserWarning)  # counted and returned
        loo = arviz().loo(idata, pointwise=True, var_name=name)
    return loo.elpd_i if IS_TREE else loo.loo_i, int((loo.pareto_k > loo.good_k).sum())
