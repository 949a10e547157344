"""Pruning on the way to something: in steps with training between, and to another width of the zoo.

Imports artifact, errors, models, resume, choice, criteria, plan and slicing.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
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
from featherweight.training_state import digest, model_digest

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
    """Prune and train by turns until the target is reached: after step k of n, share^(k/n) of the model is left, as far
    as whole multiples of channels allow; what rounding left too much the next step takes.

    An interrupted run goes on at the last step that was finished (`resume`). A folder is for one run: what `tuned` does
    is not known to it.

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
    origin = {
        "model": model_digest(model),
        "target": asdict(target),
        "settings": asdict(settings),
        "steps": steps,
        "pictures": None if pictures is None else digest([pictures.pixels, pictures.truth]),
    }
    kept = Resumable(folder, origin)
    done: list[Step] = []
    left = 1.0  # of the quantity

    def pruned(before: "keras.Model", wanted: float) -> tuple["keras.Model", Step]:
        found = plan(before, Target(target.quantity, min(1.0, wanted / left)), settings, pictures=pictures, timed=timed)
        smaller, step = apply(before, found)
        return smaller, replace(step, settings=step.settings | {"left": left * found.left})

    for number in range(1, steps + 1):
        model, step = kept.run(f"prune{number}", {}, partial(pruned, model, target.share ** (number / steps)))
        left = step.settings["left"]
        done.append(step)
        model, step = kept.run(f"train{number}", {}, partial(tuned, model))
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
