"""What each model of the zoo is tested against: a plain loop, a task and a group, one file per family of models."""

from zoo import perception, regressions, risk, two_arms
from zoo.case import Case

__all__ = ["CASES", "Case"]

CASES: list[Case] = [*two_arms.CASES, *regressions.CASES, *risk.CASES, *perception.CASES]
