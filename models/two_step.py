"""Planning and habit at once: the two-step task, model-based and model-free control weighed against each other.

Task: each trial has two stages. At the first the subject picks one of two actions; action 0 leads to state 0 and
action 1 to state 1 on 70 % of trials (common transitions), to the other state on the rest (rare ones). Each of these
two states of the second stage has two arms, and the subject picks one, which pays 1 or 0 at odds that drift. After a
reward that followed a RARE transition, habit repeats the first action; a planner takes the other one, which commonly
leads to where the reward was.

The value of the arm that was picked moves towards the reward at rate ``alpha2``. Of the first stage's two actions there
are two kinds of values. Model-free ones are learnt: that of the chosen action moves at rate ``alpha1`` towards
(1 - ``lambda_``) x the value of the arm that it led to + ``lambda_`` x the reward. (These are the two updates of
SARSA(lambda) in one line: by the prediction error of the second stage's value and, with the eligibility lambda, by that
of the reward.) Model-based ones are planned: 70 % of the value of the best arm of the state that is common after this
action and 30 % of that of the other state. All values begin at 0. The first choice follows
softmax(``beta1`` (``w`` model-based + (1 - ``w``) model-free) + ``stickiness`` for the last trial's action), the second
softmax(``beta2`` value of the arms of this state).

Subjects are taken to know the transitions. The best arm is found by a soft maximum, which exceeds the larger value by
at most 0.014 of a reward: with the maximum itself the likelihood has kinks, and a subject's estimate may lie on one,
where it has no standard error. The paper multiplies its p, here ``stickiness``, by beta1.

What the design identifies. Learning and choice at the second stage are known well. Habit and planning differ above
all after rare transitions: with the 200 trials and the slow drift of the paper, w is known roughly, the better the
faster the second stage learns and the larger beta1 is. The more a subject plans, the less is known of
alpha1 and lambda; a pure planner has neither.

Data, one row a trial:

- ``choice1`` (int): action of the first stage, 0 or 1
- ``state2`` (int): state of the second stage, 0 (common after action 0) or 1 (common after action 1)
- ``choice2`` (int): arm of the second stage, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha1``, ``alpha2`` in (0, 1), logit link: learning rate of the first, of the second stage
- ``lambda_`` in (0, 1), logit link: eligibility of the first action for the reward
- ``beta1``, ``beta2`` above 0, log link: inverse temperature of the first, of the second stage, per unit of reward
- ``w`` in (0, 1), logit link: weight of model-based control; 0 is all habit, 1 all planning
- ``stickiness``, real: log odds of taking the same first action again

References
----------
Daw, N. D., Gershman, S. J., Seymour, B., Dayan, P., & Dolan, R. J. (2011). Model-based influences on humans' choices
and striatal prediction errors. Neuron, 69, 1204-1215. https://doi.org/10.1016/j.neuron.2011.02.027
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["task", "two_step"]

COMMON = 0.7  # how often an action leads to its own state
SOFTNESS = 0.02  # the difference of two arms, in units of reward, below which their maximum is soft


@em.subject_model(
    alpha1=em.Unit(),
    alpha2=em.Unit(),
    lambda_=em.Unit(),
    beta1=em.Positive(start=3.0),
    beta2=em.Positive(start=3.0),
    w=em.Unit(),
    stickiness=em.Real(spread=1.0),
)
def two_step(alpha1, alpha2, lambda_, beta1, beta2, w, stickiness, choice1, state2, choice2, reward):
    """One subject's choices at both stages, by planning and by habit."""
    arms = arm_values(alpha2, state2, choice2, reward)
    action = w * planned_values(arms) + (1 - w) * habit_values(alpha1, lambda_, arms, choice1, state2, choice2, reward)
    pm.Bernoulli("choice1", logit_p=beta1 * lead(action) + stickiness * last(choice1), observed=choice1)
    pm.Bernoulli("choice2", logit_p=beta2 * pt.switch(state2, lead(arms[:, 1]), lead(arms[:, 0])), observed=choice2)


def arm_values(alpha2, state2, choice2, reward):
    """Values of the second stage's arms before each trial, (trial, state, arm)."""
    return delta_rule(alpha2, 2 * state2 + choice2, reward, 4).reshape((-1, 2, 2))


def habit_values(alpha1, lambda_, arms, choice1, state2, choice2, reward):
    """Model-free values of the first stage's actions before each trial, (trial, action)."""
    led_to = arms[pt.arange(choice1.shape[0]), state2, choice2]
    return delta_rule(alpha1, choice1, (1 - lambda_) * led_to + lambda_ * reward, 2)


def planned_values(arms):
    """Model-based values of the first stage's actions before each trial, (trial, action)."""
    best = arms[:, :, 0] + SOFTNESS * pt.softplus((arms[:, :, 1] - arms[:, :, 0]) / SOFTNESS)  # a soft maximum
    return COMMON * best + (1 - COMMON) * best[:, ::-1]


def delta_rule(alpha, option, target, n_options):
    """Values before each trial, (trial, option): that of the option that was taken moves towards a target, from 0."""

    def learn(k, target, q, alpha):
        return pt.set_subtensor(q[k], q[k] + alpha * (target - q[k]))

    q = pytensor.scan(
        learn,
        sequences=[option, target],
        outputs_info=[pt.zeros(n_options)],
        non_sequences=[alpha],
        strict=True,
        return_updates=False,
    )
    return pt.concatenate([pt.zeros((1, n_options)), q[:-1]])


def lead(values):
    """By how much the value of option 1 is above that of option 0, (trial,)."""
    return values[:, 1] - values[:, 0]


def last(choice):
    """1 where option 1 was chosen on the trial before, -1 where option 0, and 0 on the first trial."""
    return pt.concatenate([[0.0], 2.0 * choice[:-1] - 1.0])


def task(n_trials: int = 200) -> em.Task:
    """Make arms whose odds drift between 25 and 75 %, as in the paper.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.

    Returns
    -------
    Task
        Answers the first choice with a state, the second with a reward; odds drift alike for all subjects.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> ann = {"alpha1": 0.5, "alpha2": 0.4, "lambda_": 0.6, "beta1": 5.0, "beta2": 4.0, "w": 0.4, "stickiness": 0.2}
    >>> people = pd.DataFrame([ann], index=["ann"])
    >>> em.simulate(two_step, people, task(50), random_seed=1, progressbar=False).choice2.shape
    (1, 50)
    """
    generator = np.random.default_rng(1)
    walk = generator.uniform(0.25, 0.75, size=(2, 2)) + generator.normal(0.0, 0.025, size=(n_trials, 2, 2)).cumsum(0)
    pays = 0.25 + np.abs((walk - 0.25 + 0.5) % 1.0 - 0.5)  # turns back at 0.25 and at 0.75

    def state2(choice1, rng):
        return np.where(rng.random(choice1.shape) < COMMON, choice1, 1 - choice1)

    def reward(state2, choice2, trial, rng):
        return 1.0 * (rng.random(choice2.shape) < pays[trial, state2, choice2])

    return em.Task(n_trials, state2=state2, reward=reward)
