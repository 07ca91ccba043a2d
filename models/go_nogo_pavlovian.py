"""Action against valence: the orthogonalised go/no-go task, instrumental learning with a Pavlovian bias.

Task: four cues. On each trial the subject sees one and acts (go) or does not (no-go). Go is right for two of the cues,
no-go for the other two; with one of each a reward can be won, with the other a punishment avoided. The right response
has the better outcome on 80 % of trials, the wrong one on 20 %.

Outcomes are felt as ``rho_reward`` x 1, 0 or ``rho_punishment`` x -1. The value q of the response to this cue and the
value v of the cue itself move towards what was felt by a share ``alpha`` of the prediction error; all begin at 0. Log
odds of go are z = q(go) - q(no-go) + ``go_bias`` + ``pavlovian_bias`` v: a cue that promises reward invites action, one
that threatens punishment inhibits it, whether or not that is right. A share ``xi`` of responses is a coin flip:
P(go) = (1 - ``xi``) sigmoid(z) + ``xi`` / 2.

What the design identifies. The sensitivities are inverse temperatures too: z is in log odds. A subject with a larger
sensitivity who flips more coins does much the same, so that the sensitivities and ``xi`` are known less well than the
two biases; ``xi`` the less the smaller it is.

Data, one row a trial:

- ``cue`` (int): 0 go to win, 1 go to avoid, 2 no-go to win, 3 no-go to avoid; the model needs no more than which it was
- ``go`` (int): 1 for go, 0 for no-go
- ``outcome`` (float): 1 for a reward, 0 for nothing, -1 for a punishment

Its parameters:

- ``alpha`` in (0, 1), logit link: learning rate
- ``rho_reward``, ``rho_punishment`` above 0, log link: sensitivity to reward, to punishment, log odds per outcome
- ``go_bias``, real: log odds of go that are there from the start
- ``pavlovian_bias``, real: change of the log odds of go per unit of the cue's value; above 0 as a rule
- ``xi`` in (0, 1), logit link: irreducible noise, share of responses that are a coin flip

References
----------
Guitart-Masip, M., Huys, Q. J. M., Fuentemilla, L., Dayan, P., Duzel, E., & Dolan, R. J. (2012). Go and no-go learning
in reward and punishment: Interactions between affect and effect. NeuroImage, 62, 154-166.
https://doi.org/10.1016/j.neuroimage.2012.04.024

Cavanagh, J. F., Eisenberg, I., Guitart-Masip, M., Huys, Q., & Frank, M. J. (2013). Frontal theta overrides Pavlovian
learning biases. Journal of Neuroscience, 33, 8541-8548. https://doi.org/10.1523/JNEUROSCI.5754-12.2013
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["go_nogo_pavlovian", "task"]


@em.subject_model(
    alpha=em.Unit(start=0.3),
    rho_reward=em.Positive(start=4.0, spread=1.0),
    rho_punishment=em.Positive(start=4.0, spread=1.0),
    go_bias=em.Real(spread=1.0),
    pavlovian_bias=em.Real(spread=0.5),
    xi=em.Unit(start=0.1),
)
def go_nogo_pavlovian(alpha, rho_reward, rho_punishment, go_bias, pavlovian_bias, xi, cue, go, outcome):
    """One subject's responses to four cues."""

    def learn(cue, go, felt, q, v, alpha):
        q_after = pt.set_subtensor(q[cue, go], q[cue, go] + alpha * (felt - q[cue, go]))
        v_after = pt.set_subtensor(v[cue], v[cue] + alpha * (felt - v[cue]))
        return q_after, v_after, q[cue, 1] - q[cue, 0], v[cue]

    _, _, instrumental, pavlovian = pytensor.scan(  # the last two as they were when the response was given
        learn,
        sequences=[cue, go, outcome * pt.where(outcome < 0, rho_punishment, rho_reward)],
        outputs_info=[pt.zeros((4, 2)), pt.zeros(4), None, None],
        non_sequences=[alpha],
        strict=True,
        return_updates=False,
    )
    z = instrumental + go_bias + pavlovian_bias * pavlovian
    p_go, p_nogo = ((1 - xi) * pt.sigmoid(side) + xi / 2 for side in (z, -z))
    pm.Bernoulli("go", logit_p=pt.log(p_go) - pt.log(p_nogo), observed=go)


def task(n_repeats: int = 60) -> em.Task:
    """Make four cues in one order for all subjects, each once in every four trials.

    Parameters
    ----------
    n_repeats : int
        How often each cue comes.

    Returns
    -------
    Task
        With the column cue, and an answer to each response.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> ann = {"alpha": 0.3, "rho_reward": 4.0, "rho_punishment": 5.0, "go_bias": 0.5, "pavlovian_bias": 0.4, "xi": 0.1}
    >>> people = pd.DataFrame([ann], index=["ann"])
    >>> em.simulate(go_nogo_pavlovian, people, task(10), random_seed=1, progressbar=False).go.shape
    (1, 40)
    """
    order = np.random.default_rng(1).permuted(np.tile(np.arange(4), (n_repeats, 1)), axis=1).ravel()
    right, best = np.array([1, 1, 0, 0]), np.array([1.0, 0.0, 1.0, 0.0])

    def outcome(cue, go, rng):
        good = rng.random(go.shape) < np.where(go == right[cue], 0.8, 0.2)
        return best[cue] - 1.0 * ~good

    return em.Task(4 * n_repeats, cue=order, outcome=outcome)
