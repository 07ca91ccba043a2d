"""Would the right model win? Every model makes data, every model is fitted to them: model recovery.

Wilson, R. C., & Collins, A. G. E. (2019). Ten simple rules for the computational modeling of behavioral data. eLife, 8,
e49547 (confusion and inversion matrix).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from em_ppl.checks import check_counts
from em_ppl.model import SubjectModel
from em_ppl.studies import fit_study, in_processes, make_study
from em_ppl.tasks import Task

__all__ = ["Confusion", "confusion"]


@dataclass(frozen=True)
class Confusion:
    """Which model won, by which model made the data; made by `em_ppl.confusion`.

    Attributes
    ----------
    studies : DataFrame
        Share of studies, of those that the model of the row made, in which the model of the column has the lowest iBIC.
    subjects : DataFrame
        Share of subjects of whom the model of the column has the highest log evidence under its own group. Of two
        nested models the larger, fitted to data of the smaller, has about the same group: a toss of a coin.
    ibic : DataFrame
        One row a study: the model that made it, and the iBIC of each.
    """

    studies: pd.DataFrame
    subjects: pd.DataFrame
    ibic: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return list(self.studies.columns)

    @property
    def inversion(self) -> pd.DataFrame:
        """Probability that the row's model made a study that the column's model won, if all make as many."""
        return self.studies / self.studies.sum().replace(0.0, np.nan)

    def __repr__(self) -> str:
        each = self.ibic.groupby("made", sort=False).size().iloc[0]
        return (
            f"Model recovery, {each} studies of each model (rows: made the data, columns: best)\n\nstudies, by iBIC\n"
            f"{self.studies.to_string(float_format='{:.2f}'.format)}\n\nsubjects, by evidence\n"
            f"{self.subjects.to_string(float_format='{:.2f}'.format)}"
        )

    def _repr_html_(self) -> str:
        studies, subjects = (table.round(2).to_html() for table in (self.studies, self.subjects))
        return (
            f"<p>{repr(self).splitlines()[0]}</p><p>studies, by iBIC</p>{studies}<p>subjects, by evidence</p>{subjects}"
        )


def confusion(
    groups: Mapping[SubjectModel, Mapping[str, tuple[float, float]]],
    task: Task,
    n_subjects: int = 50,
    *,
    repetitions: int = 10,
    n_jobs: int = 1,
    random_seed: int = 0,
    progressbar: bool = True,
    **fit_kwargs: Any,
) -> Confusion:
    """Simulate studies from each model, fit all models to each study, and count who wins.

    Parameters
    ----------
    groups : mapping of SubjectModel to mapping
        The models, and of each the group of its subjects: mean and SD of every parameter, Gaussian space.
    task : Task
        The experiment; it has the columns that the models read.
    n_subjects : int
        Subjects in each study.
    repetitions : int
        Studies of each model.
    n_jobs : int
        Processes, as in joblib; -1 for all cores.
    random_seed : int
        Equal seeds give equal results, however many processes there are.
    progressbar : bool
        Whether to show progress.
    **fit_kwargs
        Passed on to `em_ppl.fit`.

    Returns
    -------
    Confusion
        Prints as two tables; `em_ppl.plot_confusion` draws it.

    Raises
    ------
    ValueError
        If there are fewer than two models, two have the same name, or a number is out of range.

    Examples
    --------
    >>> import em_ppl as em, pymc as pm
    >>> @em.subject_model(p=em.Unit())
    ... def coin(p, heads):
    ...     pm.Bernoulli("heads", p=p, observed=heads)
    >>> @em.subject_model(p=em.Unit(), change=em.Real(spread=1.0))
    ... def drifting_coin(p, change, time, heads):
    ...     pm.Bernoulli("heads", logit_p=pm.math.logit(p) + change * time, observed=heads)
    >>> groups = {coin: {"p": (0.0, 1.0)}, drifting_coin: {"p": (0.0, 1.0), "change": (1.0, 1.0)}}
    >>> task = em.Task(60, time=[t / 30 - 1 for t in range(60)])
    >>> em.confusion(groups, task, 30, repetitions=2, progressbar=False).studies
                   coin  drifting_coin
    coin            1.0            0.0
    drifting_coin   0.0            1.0
    """
    models = list(groups)
    names = [model.name for model in models]
    if len(models) < 2 or len(set(names)) < len(names):
        raise ValueError(f"confusion needs two models or more, of different names; it has {', '.join(names)}.")
    check_counts(repetitions=repetitions, n_subjects=n_subjects)
    seeds = np.random.SeedSequence(random_seed).spawn(repetitions * len(models))
    work = [(k % len(models), seed) for k, seed in enumerate(seeds)]
    studies = in_processes(_study, work, (groups, task, n_subjects, fit_kwargs), n_jobs, show=progressbar)
    made = np.array([names[k] for k, _ in work])
    ibic = pd.DataFrame([study[0] for study in studies], columns=names)
    evidence = np.array([study[1] for study in studies])  # (study, subject, model)
    return Confusion(
        studies=_shares(np.eye(len(names))[ibic.to_numpy().argmin(1)], made, names),
        subjects=_shares(np.eye(len(names))[evidence.argmax(2)].mean(1), made, names),
        ibic=ibic.assign(made=made)[["made", *names]],
    )


def _shares(won: NDArray[np.float64], made: NDArray[np.str_], names: list[str]) -> pd.DataFrame:
    """Average what each model won, (study, model), over the studies that each model made."""
    return pd.DataFrame([won[made == name].mean(0) for name in names], index=names, columns=names)


def _study(
    item: tuple[int, Any], groups: Mapping[SubjectModel, Any], task: Task, n_subjects: int, fit_kwargs: Any
) -> tuple[list[float], NDArray[np.float64]]:
    """Make one study, and fit all models: the iBIC of each, and every subject's log evidence, (subject, model)."""
    maker, generator = list(groups)[item[0]], np.random.default_rng(item[1])
    _, data, fit_seed = make_study(maker, groups[maker], task, n_subjects, generator, fit_kwargs)
    evidence = [fit_study(model, data, fit_seed, fit_kwargs).evidence for model in groups]
    return [e.ibic for e in evidence], np.column_stack([e.subjects["log_evidence"].values for e in evidence])
