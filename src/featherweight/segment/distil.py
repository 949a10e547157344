"""A teacher's pixels beside the true ones: `Distillation` in a training.

The loss of a batch, with the student's logits s, the teacher's t and the true mask y:

    α · loss(y, s)  +  (1 - α) · [ T² · KL(softmax(t / T) ‖ softmax(s / T))  +  w · features ]

KL is the mean over all pixels, those too where nothing is asked, as the teacher knows an answer; of one channel it is
that of the two classes. Hinton et al. 2015, arXiv 1503.02531, for each pixel as Liu et al. 2019, arXiv 1903.04197,
§3.1. `features`: the mean over the named endpoints of |p(s) - t|² / |t|², p a 1×1 projection where the widths differ,
as in `distill`.

Imports errors, losses and models; keras where it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherweight.errors import SettingError
from featherweight.models.ends import logits

if TYPE_CHECKING:
    import keras

TINY = 1e-6


@dataclass(frozen=True)
class Distillation:
    """A trained segmenter for the student's classes, and how much it counts.

    `alpha` is the share of the true masks' own loss; `endpoints` are pairs of layers (student's, teacher's) whose maps
    are to be alike.
    """

    teacher: "keras.Model"
    alpha: float = 0.5
    temperature: float = 2.0
    endpoints: tuple[tuple[str, str], ...] = ()
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1 or not self.temperature > 0 or not self.feature_weight > 0:
            raise SettingError(
                f"alpha {self.alpha}, temperature {self.temperature}, feature weight {self.feature_weight}; "
                "wanted 0 up to 1, and over 0"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the lineage."""
        return {
            "teacher": self.teacher.name,
            "teacher_parameters": self.teacher.count_params(),
            "alpha": self.alpha,
            "temperature": self.temperature,
            "endpoints": [list(pair) for pair in self.endpoints],
            "feature_weight": self.feature_weight,
        }


def pair_of(student: "keras.Model", distillation: Distillation) -> "keras.Model":
    """Picture → logits of both (b, h, w, 2 · channels), and how far their features are apart (b, 1) where endpoints are
    named.

    Raises:
        SettingError: answers of another shape, endpoints that are not there or of another size.
    """
    import keras

    original = distillation.teacher
    if student.input_shape != original.input_shape or student.output_shape != original.output_shape:
        raise SettingError(
            f"the teacher {original.name} makes {original.output_shape[1:]} of {original.input_shape[1:]}, the student "
            f"{student.output_shape[1:]} of {student.input_shape[1:]}; wanted the same"
        )
    # A copy, as whether it learns is a matter of the layers.
    teacher = keras.models.clone_model(original)
    teacher.set_weights(original.get_weights())
    pairs = [(_map(student, ours), _map(teacher, its)) for ours, its in distillation.endpoints]
    seen = keras.Model(student.inputs[0], [logits(student, "student", sigmoid=True), *(ours for ours, _ in pairs)])
    answer = logits(teacher, "teacher", sigmoid=True)
    said = keras.Model(teacher.inputs[0], [answer, *(its for _, its in pairs)], name="teacher")
    said.trainable = False
    image = keras.Input(student.input_shape[1:], name="image")
    # Not to be trained does not keep a layer from acting as in training: dropout, say.
    (mine, *ours_of), (told, *its_of) = seen(image), said(image, training=False)
    joined = keras.layers.Concatenate(name="logits_of_both")([mine, told])
    if not pairs:
        return keras.Model(image, joined)
    apart: Any = 0.0
    for number, (ours, its) in enumerate(zip(ours_of, its_of, strict=True)):
        apart = apart + _apart(ours, its, number) / len(pairs)
    return keras.Model(image, (joined, keras.ops.expand_dims(apart, -1)))


def _apart(ours: Any, its: Any, number: int) -> Any:
    import keras

    if ours.shape[1:3] != its.shape[1:3]:
        raise SettingError(f"endpoints of {ours.shape[1:]} and {its.shape[1:]}; wanted maps of one size")
    if ours.shape[-1] != its.shape[-1]:
        ours = keras.layers.Conv2D(its.shape[-1], 1, name=f"projection_{number}")(ours)
    off = keras.ops.sum(keras.ops.square(ours - its), axis=(1, 2, 3))
    size = keras.ops.sum(keras.ops.square(its), axis=(1, 2, 3))
    return off / keras.ops.maximum(size, TINY)


def losses_of(own: Callable[[Any, Any], Any], distillation: Distillation) -> tuple[Callable[[Any, Any], Any], ...]:
    """A loss for each output of `pair_of`, the student's own among them."""
    import tensorflow as tf
    from keras import ops

    rest, temperature = 1 - distillation.alpha, distillation.temperature

    def both(truth: Any, joined: Any) -> Any:
        channels = joined.shape[-1] // 2
        mine, its = joined[..., :channels], ops.stop_gradient(joined[..., channels:])
        taught = temperature**2 * ops.mean(divergence(its / temperature, mine / temperature))
        return distillation.alpha * own(truth, mine) + rest * taught

    def features(_: Any, apart: Any) -> Any:
        return rest * distillation.feature_weight * ops.mean(apart)

    found = (both, features) if distillation.endpoints else (both,)
    return tuple(tf.autograph.experimental.do_not_convert(one) for one in found)


def divergence(told: Any, learnt: Any) -> Any:
    """KL(p(told) ‖ p(learnt)) of logits (b, h, w, channels), a number each: (b, h, w)."""
    from keras import ops

    if told.shape[-1] == 1:  # the softmax of (0, z) is the sigmoid of z
        told, learnt = (ops.concatenate([ops.zeros_like(one), one], axis=-1) for one in (told, learnt))
    told, learnt = ops.log_softmax(told), ops.log_softmax(learnt)
    return ops.sum(ops.exp(told) * (told - learnt), axis=-1)


def _map(model: "keras.Model", name: str) -> Any:
    known = {layer.name: layer for layer in model.layers}
    if name not in known or len(known[name].output.shape) != 4:
        raise SettingError(f"{model.name} has no map {name!r}; name a layer that gives one")
    return known[name].output
