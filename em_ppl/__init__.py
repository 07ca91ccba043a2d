"""Fit one subject's PyMC likelihood to many people by EM-MAP, and hand over to full Bayes."""

from importlib.metadata import version as _version

from em_ppl import compat  # noqa: F401  first: it quiets an announcement that ArviZ 0.23 makes at import
from em_ppl.agreement import Agreement, agreement
from em_ppl.comparison import Comparison, compare
from em_ppl.compiled import CompiledModel
from em_ppl.confusion import Confusion, confusion
from em_ppl.data import from_dataframe, from_subjects
from em_ppl.diagnosis import Diagnosis
from em_ppl.distributions import Cauchy, Laplace, Normal, StudentT
from em_ppl.em import ConvergenceWarning, fit
from em_ppl.estimators import ImportanceSampling, Quadrature
from em_ppl.evidence import Evidence
from em_ppl.frequencies import FrequenciesByGroup, ModelFrequencies, frequencies_by_group, model_frequencies
from em_ppl.functions import BatchingWarning
from em_ppl.group import GroupPrior
from em_ppl.group_estimate import GroupEstimate, WaldTest
from em_ppl.inference_data import load
from em_ppl.mixture import MixturePrior, fit_classes, fit_mixture
from em_ppl.mixture_result import HierarchicalTTest, Mixture
from em_ppl.model import ModelError, SubjectModel, subject_model
from em_ppl.parameters import Interval, Parameter, Positive, Real, Unit
from em_ppl.plots import (
    plot_attribution,
    plot_calibration,
    plot_confusion,
    plot_convergence,
    plot_evidence,
    plot_forest,
    plot_frequencies,
    plot_posterior,
    plot_predictions,
    plot_recovery,
    plot_shrinkage,
    plot_subjects,
)
from em_ppl.pyem import from_pyem
from em_ppl.pymc_models import PyMCModel, from_pymc
from em_ppl.python_models import PythonModel, python_model
from em_ppl.recovery import Recovery, recover
from em_ppl.result import Fit
from em_ppl.simulation import draw_subjects, simulate
from em_ppl.tasks import Task

__version__ = _version("em-ppl")

__all__ = [
    "Agreement",
    "BatchingWarning",
    "Cauchy",
    "Comparison",
    "CompiledModel",
    "Confusion",
    "ConvergenceWarning",
    "Diagnosis",
    "Evidence",
    "Fit",
    "FrequenciesByGroup",
    "GroupEstimate",
    "GroupPrior",
    "HierarchicalTTest",
    "ImportanceSampling",
    "Interval",
    "Laplace",
    "Mixture",
    "MixturePrior",
    "ModelError",
    "ModelFrequencies",
    "Normal",
    "Parameter",
    "Positive",
    "PyMCModel",
    "PythonModel",
    "Quadrature",
    "Real",
    "Recovery",
    "StudentT",
    "SubjectModel",
    "Task",
    "Unit",
    "WaldTest",
    "agreement",
    "compare",
    "confusion",
    "draw_subjects",
    "fit",
    "fit_classes",
    "fit_mixture",
    "frequencies_by_group",
    "from_dataframe",
    "from_pyem",
    "from_pymc",
    "from_subjects",
    "load",
    "model_frequencies",
    "plot_attribution",
    "plot_calibration",
    "plot_confusion",
    "plot_convergence",
    "plot_evidence",
    "plot_forest",
    "plot_frequencies",
    "plot_posterior",
    "plot_predictions",
    "plot_recovery",
    "plot_shrinkage",
    "plot_subjects",
    "python_model",
    "recover",
    "simulate",
    "subject_model",
]
