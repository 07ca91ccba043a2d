"""What each model of the zoo is tested against: a plain loop, a task and a group, one file per family of models."""

from zoo import bandits, diffusion, economics, perception, planning, regressions, risk, two_arms
from zoo.case import Case

__all__ = ["CASES", "Case"]

FAMILIES = (two_arms, bandits, planning, economics, risk, perception, diffusion, regressions)
CASES: list[Case] = [case for family in FAMILIES for case in family.CASES]
