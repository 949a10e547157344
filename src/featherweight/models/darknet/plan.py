"""A Darknet network as plain data, before Keras is asked: shapes, sources, how many numbers of the weights file.

In scope: integers and what bounds them. Not aware of: what a section means (`rules`), Keras, the weights'
values. Imports cfg and modelfile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from featherweight.models.darknet.cfg import Section

Shape = tuple[int, int, int]  # (height, width, channels)
PICTURE = -1  # the number by which a layer's source is the picture itself

MAX_SIDE = 8_192  # of the picture
MAX_MAP_NUMBERS = 2**28  # of one map: YOLOv4-P7's widest has 75 million
MAX_FLOATS = 2**29  # of all weights: 2 GiB
MAX_LIST = 64  # layers that one route or shortcut takes
HEADS = ("yolo", "gaussian_yolo", "region", "detection")

# Keys that change what is computed, in ways that no layer here has → the value that means "not so".
REFUSED: dict[str, dict[str, int | str | None]] = {
    "convolutional": {"antialiasing": 0, "binary": 0, "xnor": 0, "bin_output": 0, "share_index": None, "sway": 0,
                      "rotate": 0, "stretch": 0, "stretch_sway": 0, "coordconv": 0, "assisted_excitation": 0,
                      "dot": None, "reverse": 0, "dontload": 0, "dontloadscales": 0, "numload": 0},
    "maxpool": {"antialiasing": 0, "maxpool_depth": 0, "maxpool_zero_nonmax": 0},
    "connected": {"dontload": 0, "dontloadscales": 0}, "local": {"dontload": 0}, "batchnorm": {"dontload": 0},
    "reorg": {"reverse": 0, "flatten": 0, "extra": 0}, "reorg3d": {"reverse": 0},
    "softmax": {"tree": None}, "region": {"tree": None, "background": 0, "classfix": 0},
    "gaussian_yolo": {"yolo_point": "center"}, "detection": {"reorg": 0},
    "net": {"inputs": None, "time_steps": 1},
}  # fmt: skip

# The activation of a section that names none.
ACTIVATED = {
    "convolutional": "logistic", "connected": "logistic", "local": "logistic", "shortcut": "linear",
    "scale_channels": "linear", "sam": "linear", "activation": "linear",
}  # fmt: skip
# `hardswish` and its other spellings are not Darknet's own but OpenCV's and its forks'.
ACTIVATIONS = (
    "linear", "logistic", "loggy", "relu", "relu6", "elu", "selu", "gelu", "relie", "ramp", "leaky", "revleaky",
    "tanh", "plse", "hardtan", "lhtan", "swish", "mish", "hard_mish", "hardswish", "hard_swish", "hswish", "h_swish",
    "normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval",
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    """Words."""
    return frozenset(text.split())


# What only training, drawing or suppression reads.
ASIDE = _words(
    """
    jitter ignore_thresh truth_thresh random iou_thresh cls_normalizer iou_normalizer obj_normalizer delta_normalizer
    uc_normalizer iou_loss iou_thresh_kind nms_kind beta_nms resize max max_delta counters_per_class label_smooth_eps
    objectness_smooth focal_loss show_details track_history_size sim_thresh dets_for_track dets_for_show
    track_ciou_norm embedding_layer log rescore thresh absolute coord_scale object_scale noobject_scale mask_scale
    class_scale bias_match forced stopbackward onlyforward dont_update burnin_update train_only_bn learning_rate clip
    stream wait_stream grad_centr angle type ratio noloss flip saturation exposure shift dropblock dropblock_size_rel
    dropblock_size_abs truth dontsave
    """
)


@dataclass(frozen=True)
class Planned:
    """One section with its shapes."""

    number: int  # Darknet's: the first section behind [net] is 0
    section: Section
    sources: tuple[int, ...]  # whose outputs it takes; the first is the layer before it, or what stands for it
    shape: Shape  # of what it gives
    floats: int = 0  # of it in the weights file
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The section's name."""
        return self.section.name

    @property
    def label(self) -> str:
        """For errors and reports."""
        return f"layer {self.number}, [{self.kind}] of line {self.section.line}"


@dataclass(frozen=True)
class Plan:
    """A network."""

    net: Section
    picture: Shape
    layers: tuple[Planned, ...]

    @property
    def floats(self) -> int:
        """Numbers of the weights file."""
        return sum(layer.floats for layer in self.layers)

    @property
    def ignored(self) -> tuple[tuple[str, str], ...]:
        """(layer, key) of every setting that nothing here has looked at and that is not for training."""
        found = []
        for layer in self.layers:
            keys = sorted(set(layer.section.options) - layer.section.asked - ASIDE)
            found += [(layer.label, f"the key {key[:40]} is not known") for key in keys]
        return tuple(found)

    @property
    def heads(self) -> tuple[Planned, ...]:
        """The layers whose inputs tell of boxes."""
        return tuple(layer for layer in self.layers if layer.kind in HEADS)

    def shape(self, number: int) -> Shape:
        """Of what a layer gives, or of the picture."""
        return self.picture if number == PICTURE else self.layers[number].shape


@dataclass(frozen=True)
class Here:
    """A section and what stands before it."""

    section: Section
    number: int
    picture: Shape
    before: Sequence[Planned]

    @property
    def shape(self) -> Shape:
        """Of what comes in from the layer before."""
        return self.of(self.number - 1)

    def of(self, number: int) -> Shape:
        """The shape of what a layer gives that may be taken from."""
        if number == PICTURE:
            return self.picture
        if self.before[number].kind in HEADS:
            raise self.section.failure(f"takes what {self.before[number].label} gives", "wanted a map")
        return self.before[number].shape

    def reference(self, key: str, index: int) -> int:
        """The number of the layer that an index points to, from the start or, where negative, back from here."""
        number = index if index >= 0 else self.number + index
        if not 0 <= number < self.number:
            raise self.section.failure(
                f"{key}={index} from layer {self.number}", "wanted a layer before it: 0 …, or -1 …", key
            )
        return number

    def gives(self, shape: Shape, sources: tuple[int, ...] = (), floats: int = 0, **settings: Any) -> Planned:
        """The layer; its first source is the one before it where none is given."""
        if min(shape) < 1:
            raise self.section.failure(f"would give a map of {by(shape)}", "wanted a larger picture or smaller window")
        if math.prod(shape) > MAX_MAP_NUMBERS:
            raise self.section.failure(
                f"would give {math.prod(shape):,} numbers for one picture", f"wanted up to {MAX_MAP_NUMBERS:,}"
            )
        return Planned(self.number, self.section, sources or (self.number - 1,), shape, floats, settings)


def by(shape: Sequence[int]) -> str:
    """A shape for errors."""
    return "×".join(str(size) for size in shape)
