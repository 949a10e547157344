"""Channels removed for real: `keras.Model` → plan → a smaller, ordinary `keras.Model`.

    plan = prune.plan(model, prune.Target("macs", 0.5))     # choose
    print(plan)                                             # look: group, layers, channels before → after, MACs
    smaller, step = prune.apply(model, plan)                # do it; `model` is unchanged

Channels that are added, concatenated, shuffled or scaled by a gate must go together; `trace` follows them through the
graph, `rules` says what each layer does with them, `criteria` how much each matters, `choice` which go, `slicing` cuts.
`narrowed` gives a network another width with the best of its weights; `gradually` prunes and trains by turns.
"""

from featherweight.prune.choice import Timed, plan, plan_like
from featherweight.prune.criteria import CRITERIA, Pictures
from featherweight.prune.gradual import gradually, narrowed
from featherweight.prune.plan import QUANTITIES, SCOPES, Group, Plan, PruneSettings, Target
from featherweight.prune.slicing import apply

__all__ = [
    "CRITERIA", "QUANTITIES", "SCOPES", "Group", "Pictures", "Plan", "PruneSettings", "Target", "Timed", "apply",
    "gradually", "narrowed", "plan", "plan_like",
]  # fmt: skip
