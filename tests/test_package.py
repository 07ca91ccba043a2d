"""What `import em_ppl` costs."""

import json
import subprocess
import sys

HEAVY = ["arviz", "formulaic", "joblib", "matplotlib", "scipy.cluster", "scipy.optimize", "scipy.stats"]
COUNT = """
import json, sys
import pymc
before = set(sys.modules)
import em_ppl
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_loads_nothing_heavy_that_pymc_has_not():
    """ArviZ alone takes longer than PyMC: such things are loaded when they are first used."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COUNT], capture_output=True, text=True, check=True)
    added = json.loads(done.stdout)
    assert "em_ppl.em" in added
    assert not set(HEAVY) & set(added)
