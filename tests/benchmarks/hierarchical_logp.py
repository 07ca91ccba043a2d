"""Log density and gradient of the hierarchical model against one with its subject axis written by hand, as ratios.

    python tests/benchmarks/hierarchical_logp.py

Rescorla-Wagner, 100 subjects x 200 trials, non-centred, microseconds of CPU per evaluation: what
`SubjectModel.hierarchical` makes of the one-subject likelihood, and the same `pymc.Model` as an expert would write it,
with ``q[subject, c]``, or with one state per option.
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from rescorla_wagner import REPEATS, cpu, learners, natural, scalars


def by_hand(data: xr.Dataset, likelihood: str) -> pm.Model:
    """Write the model over all subjects."""
    choice, reward = data["choice"].values, data["reward"].values
    coords = {"subject": data["subject"].values, "trial": data["trial"].values, "parameter": ["alpha", "beta"]}
    with pm.Model(coords=coords) as model:
        mean = pm.Normal("group_mean", 0.0, [1.5, 4.5], dims="parameter")
        sd = pm.HalfNormal("group_sd", 1.5, dims="parameter")
        alpha_offset = pm.Normal("alpha_offset", dims="subject")
        beta_offset = pm.Normal("beta_offset", dims="subject")
        alpha = pm.Deterministic("alpha", pt.sigmoid(mean[0] + sd[0] * alpha_offset), dims="subject")
        beta = pm.Deterministic("beta", pt.exp(mean[1] + sd[1] * beta_offset), dims="subject")
        sequences = [pt.constant(choice.T), pt.constant(reward.T)]
        {"natural": natural_likelihood, "scalars": scalars_likelihood}[likelihood](alpha, beta, sequences, choice)
    return model


def natural_likelihood(alpha, beta, sequences, choice) -> None:
    """Values of all options in one state, (subject, option)."""

    def learn(c, r, q, alpha):
        own = q[pt.arange(q.shape[0]), c]
        return pt.set_subtensor(own, own + alpha * (r - own))

    start = pt.zeros((len(choice), 2))
    settings = {"sequences": sequences, "outputs_info": [start], "non_sequences": [alpha]}
    q = pytensor.scan(learn, **settings, strict=True, return_updates=False)
    before = pt.concatenate([start[None], q[:-1]])
    logit_p = (beta[:, None] * before).transpose(1, 0, 2)
    pm.Categorical("choice", logit_p=logit_p, observed=choice, dims=("subject", "trial"))


def scalars_likelihood(alpha, beta, sequences, choice) -> None:
    """One state per option, (subject,)."""

    def learn(c, r, q0, q1, alpha):
        return q0 + alpha * pt.eq(c, 0) * (r - q0), q1 + alpha * pt.eq(c, 1) * (r - q1)

    start = pt.zeros(len(choice))
    settings = {"sequences": sequences, "outputs_info": [start] * 2, "non_sequences": [alpha]}
    q0, q1 = pytensor.scan(learn, **settings, strict=True, return_updates=False)
    before = pt.concatenate([start[None], (q1 - q0)[:-1]])
    pm.Bernoulli("choice", logit_p=(beta * before).T, observed=choice, dims=("subject", "trial"))


def main() -> None:
    """Compare."""
    data = learners()[["choice", "reward"]]
    models = {}
    for model in (natural, scalars):
        models[model.name] = model.hierarchical(data)
        models[f"{model.name} by hand"] = by_hand(data, model.name)
    calls, slopes = {}, {}
    for name, model in models.items():
        function = model.logp_dlogp_function(ravel_inputs=True)
        function.set_extra_values({})
        # the same point, in the same order of variables
        values = np.random.default_rng(3).normal(0.0, 0.5, sum(np.size(v) for v in model.initial_point(0).values()))
        slopes[name] = function(values)[1]
        calls[name] = lambda function=function, values=values: function(values)
    for name in ("natural", "scalars", "scalars by hand"):
        np.testing.assert_allclose(slopes[name], slopes["natural by hand"], rtol=1e-7, atol=1e-7)
    times = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            times[name].append(cpu(call, 50) * 1e6)
    medians = {name: float(np.median(t)) for name, t in times.items()}
    for name in ("natural", "scalars"):
        hand = medians[f"{name} by hand"]
        print(f"{name}: {medians[name]:6.0f} us, by hand {hand:6.0f} us, ratio {medians[name] / hand:.2f}")


if __name__ == "__main__":
    main()
