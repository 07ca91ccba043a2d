"""Actor and critic: one learns what a situation is worth, the other learns from its surprise what to do there.

Task: on each trial one of four pairs of pictures comes up, and the subject picks one of the two. In pairs 0 and 1 it
may win, in pairs 2 and 3 it may lose. The critic has a value V of each pair; the prediction error is reward - V, and V
moves by a share ``alpha_critic`` of it. The actor has a weight of each picture; that of the chosen picture moves by
``alpha_actor`` times the same prediction error. Pictures are chosen with probability softmax(weights). Values and
weights begin at 0.

Pictures have no value of their own here, as the arms of `rescorla_wagner` do. Once the critic expects a loss, to lose
nothing is good news: the actor learns to avoid a loss just as it learns to win.

What the design identifies. An inverse temperature would multiply all weights, as ``alpha_actor`` does: only their
product shows in choices, so the temperature is 1. Weights have no ceiling, and choices become ever surer and tell ever
less: it is in the early trials of a pair that ``alpha_critic`` shows.

Data, one row a trial:

- ``pair`` (int): which pair came up, 0 to 3
- ``choice`` (int): the picture, 0 or 1
- ``reward`` (float): what it paid, negative for losses; of the order of 1

Its parameters:

- ``alpha_critic`` in (0, 1), logit link: learning rate of the values of pairs
- ``alpha_actor`` above 0, log link: change in the log odds of a picture per unit of prediction error

References
----------
Barto, A. G., Sutton, R. S., & Anderson, C. W. (1983). Neuronlike adaptive elements that can solve difficult learning
control problems. IEEE Transactions on Systems, Man, and Cybernetics, SMC-13, 834-846.
https://doi.org/10.1109/TSMC.1983.6313077

Gold, J. M., Waltz, J. A., Matveeva, T. M., Kasanova, Z., Strauss, G. P., Herbener, E. S., Collins, A. G. E., &
Frank, M. J. (2012). Negative symptoms and the failure to represent the expected reward value of actions: Behavioral
and computational modeling evidence. Archives of General Psychiatry, 69, 129-138.
https://doi.org/10.1001/archgenpsychiatry.2011.1269

Collins, A. G. E., & Frank, M. J. (2014). Opponent actor learning (OpAL): Modeling interactive effects of striatal
dopamine on reinforcement learning and choice incentive. Psychological Review, 121, 337-366.
https://doi.org/10.1037/a0037015
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["actor_critic", "task"]

N_PAIRS = 4


@em.subject_model(alpha_critic=em.Unit(), alpha_actor=em.Positive())
def actor_critic(alpha_critic, alpha_actor, pair, choice, reward):
    """One subject's choices within pairs of pictures."""

    def learn(s, c, r, value, weight, alpha_critic, alpha_actor):
        error = r - value[s]
        criticised = pt.set_subtensor(value[s], value[s] + alpha_critic * error)
        return criticised, pt.set_subtensor(weight[s, c], weight[s, c] + alpha_actor * error), weight[s]

    _, _, before = pytensor.scan(  # the pair's weights as they were when the choice was made
        learn,
        sequences=[pair, choice, reward],
        outputs_info=[pt.zeros(N_PAIRS), pt.zeros((N_PAIRS, 2)), None],
        non_sequences=[alpha_critic, alpha_actor],
        strict=True,
        return_updates=False,
    )
    pm.Categorical("choice", logit_p=before, observed=choice)


def task(n_trials: int = 160) -> em.Task:
    """Make two pairs that pay 1 or 0 and two that cost 1 or 0, in random order, each as often as the others.

    Picture 1 is the better one: it has the better outcome in 90 % of trials (pairs 0 and 2) or 80 % (pairs 1 and 3),
    picture 0 in the others.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.

    Returns
    -------
    Task
        With the column pair, and an answer to each choice.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"alpha_critic": (-1.0, 1.0), "alpha_actor": (-0.5, 0.5)}
    >>> people = em.draw_subjects(actor_critic, group, 2, random_seed=1)
    >>> em.simulate(actor_critic, people, task(40), random_seed=1, progressbar=False).choice.shape
    (2, 40)
    """
    better = np.array([[0.1, 0.9], [0.2, 0.8], [0.1, 0.9], [0.2, 0.8]])  # (pair, picture)

    def reward(pair, choice, rng):
        return 1.0 * (rng.random(choice.shape) < better[pair, choice]) - (pair >= 2)

    pairs = np.random.default_rng(0).permuted(np.resize(np.arange(N_PAIRS), n_trials))
    return em.Task(n_trials, pair=pairs, reward=reward)
