"""Pictures of a fit, and of a fit beside NUTS: matplotlib figures, with ArviZ where it has them."""

from em_ppl.plots.comparison import plot_attribution, plot_evidence, plot_frequencies
from em_ppl.plots.convergence import plot_convergence
from em_ppl.plots.forest import plot_forest
from em_ppl.plots.posterior import plot_posterior
from em_ppl.plots.predictions import plot_predictions
from em_ppl.plots.recovery import plot_calibration, plot_confusion, plot_recovery
from em_ppl.plots.shrinkage import plot_shrinkage
from em_ppl.plots.subjects import plot_subjects

__all__ = [
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
]
