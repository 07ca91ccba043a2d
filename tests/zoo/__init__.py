"""What each model of the zoo is tested against: a plain loop, a task and a group, one file per family of models.

Compiling all models takes ten minutes. A run of the tests takes every fourth of them, those of its version of Python;
``ALL_TESTS=1 pytest`` takes all.
"""

from __future__ import annotations

import os
import sys

from zoo import bandits, diffusion, economics, learning, perception, planning, regressions, risk, two_arms
from zoo.case import Case

__all__ = ["ALL_CASES", "CASES", "Case"]

FAMILIES = (two_arms, bandits, planning, learning, economics, risk, perception, diffusion, regressions)
ALL_CASES: list[Case] = [case for family in FAMILIES for case in family.CASES]
CASES = ALL_CASES if os.environ.get("ALL_TESTS") else ALL_CASES[sys.version_info.minor % 4 :: 4]
