"""claim_04_equal_total for two layers, of which the first is early, the second late, and none in the middle; ten seeds.

40 runs at about 0.6 CPU-minutes, by the records of claim_00_depth: 0.4 hours of one core.
"""

from pathlib import Path

from sslcollapse.recipe import load

COEFFICIENT = "regularizers.werank.coefficient"

ablation = load(Path(__file__).with_name("claim_04_equal_total.py"), "ablation")
ablation |= {"name": "claim_04_equal_total_two", "base": "../claims/bgrl_deep_cora.py"}
axes, claim = ablation["axes"], ablation["claim"]
axes["encoder.hidden"] = [[256] * 2]
nothing, all_, early, _, late = axes[COEFFICIENT]
late = {**late, "start": 1.0}
axes[COEFFICIENT] = [nothing, all_, early, late]
claim["checks"] = [check for check in claim["checks"] if "middle" not in check["name"]]
for check in claim["checks"]:
    if "late" in check["name"]:
        check["cell"] = {COEFFICIENT: late}
