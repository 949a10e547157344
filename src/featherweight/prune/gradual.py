"""Pruning on the way to something: in steps with training between, and to another width of the zoo.

Imports artifact, errors, models, resume, choice, criteria, plan and slicing.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.zoo import Shape, build
from featherweight.prune.choice import Timed, plan, plan_like
from featherweight.prune.criteria import Pictures
from featherweight.prune.plan import PruneSettings, Target
from featherweight.prune.slicing import apply
from featherweight.resume import Resumable
from featherweight.training_state import digest

if TYPE_CHECKING:
    import keras

Tuned = Callable[["keras.Model"], tuple["keras.Model", Step]]


def gradually(
    model: "keras.Model",
    target: Target,
    steps: int,
    tuned: Tuned,
    folder: str | Path,
    settings: PruneSettings | None = None,
    *,
    pictures: Pictures | None = None,
    timed: Timed | None = None,
) -> tuple["keras.Model", Step]:
    """Prune and train by turns until the target is reached; each step takes the same share of what is left.

    An interrupted run goes on at the last step that was finished (`resume`).

    Args:
        model: trained; unchanged.
        target: as `plan`'s, of the model given.
        steps: how often, 1 or more.
        tuned: trains a pruned model, and says what it did.
        folder: where the models of the steps are kept.
        settings: as `plan`'s.
        pictures: as `plan`'s.
        timed: as `plan`'s.

    Raises:
        SettingError: as `plan`; the folder holds steps of another run; fewer than one step.
    """
    if steps < 1:
        raise SettingError(f"{steps} steps; wanted 1 or more")
    settings = settings or PruneSettings()
    each = Target(target.quantity, target.share ** (1 / steps))
    kept = Resumable(
        folder, {"weights": digest(model.get_weights()), "target": asdict(target), "settings": asdict(settings)}
    )
    done: list[Step] = []

    def pruned(before: "keras.Model") -> tuple["keras.Model", Step]:
        return apply(before, plan(before, each, settings, pictures=pictures, timed=timed))

    for number in range(1, steps + 1):
        for name, work in ((f"prune{number}", pruned), (f"train{number}", tuned)):
            model, step = kept.run(name, {}, partial(work, model))
            done.append(step)
    history = [{"step": step.name, **step.settings} for step in done]
    skipped = dict(pair for step in done for pair in step.skipped)
    return model, Step(
        "prune_gradually", {"target": {target.quantity: target.share}, "steps": history}, tuple(skipped.items())
    )


def narrowed(
    model: "keras.Model", shape: Shape, settings: PruneSettings | None = None, *, pictures: Pictures | None = None
) -> tuple["keras.Model", Step]:
    """A network of the zoo at another width multiplier, with the channels of this model that matter most.

    Args:
        model: as `models.zoo.build` made it, at a larger width; trained; unchanged.
        shape: the network, its smaller width and the input size.
        settings: the criterion.
        pictures: for taylor.

    Raises:
        SettingError: not that network, or a width that its channel groups cannot have (ShuffleNet's, where shuffles tie
            channels: prune it to a target instead).
    """
    classes = int(model.outputs[0].shape[-1])
    smaller = build(shape, classes, channels=int(model.inputs[0].shape[-1]))
    result, step = apply(model, plan_like(model, smaller, settings, pictures=pictures))
    result.name = smaller.name
    return result, Step("narrow", {"width": shape.width, **step.settings}, step.skipped)
