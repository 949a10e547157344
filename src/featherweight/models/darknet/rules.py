"""What each section of a Darknet cfg computes: one rule a section, one table.

The rules are those of AlexeyAB's Darknet; where pjreddie's differs a key tells which is meant. A rule gives shapes and
settings in integers, so that every size is bounded before anything is built, and names a mistake by section and line.

In scope: shapes. Not aware of: Keras, the weights' values. Imports cfg and plan.
"""

import math
from collections.abc import Callable, Sequence

from featherweight.models.darknet.cfg import Section
from featherweight.models.darknet.plan import (
    ACTIVATED,
    ACTIVATIONS,
    MAX_FLOATS,
    MAX_LIST,
    MAX_SIDE,
    REFUSED,
    Here,
    Plan,
    Planned,
    by,
)

Rule = Callable[[Here], Planned]


def plan(sections: Sequence[Section]) -> Plan:
    """The network of a cfg file.

    Raises:
        ModelFileError: something in it that cannot be; section and line are named.
    """
    net = sections[0]
    check_refused(net)
    picture = (net.whole("height", least=1), net.whole("width", least=1), net.whole("channels", 3))
    if max(picture[:2]) > MAX_SIDE:
        raise net.failure(f"a picture of {by(picture)}", f"wanted sides up to {MAX_SIDE:,}", "width")
    if picture[2] != 3:
        raise net.failure(f"channels={picture[2]}", "wanted channels=3, RGB", "channels")
    layers: list[Planned] = []
    floats = 0
    for number, section in enumerate(sections[1:]):
        check_refused(section)
        layer = RULES[section.name](Here(section, number, picture, layers))
        if section.name in ACTIVATED:
            layer.settings["activation"] = _activation(section)
        layers.append(layer)
        floats += layers[-1].floats
        if floats > MAX_FLOATS:
            raise section.failure(f"and those before it have {floats:,} weights", f"wanted up to {MAX_FLOATS:,}")
    return Plan(net, picture, tuple(layers))


def _activation(section: Section) -> str:
    name = section.text("activation", ACTIVATED[section.name])
    if name == "stair":
        raise section.failure("activation=stair, for which no layer here stands", "it cannot be imported", "activation")
    if name not in ACTIVATIONS:
        raise section.failure(f"unknown activation={name[:40]}", f"known: {', '.join(ACTIVATIONS)}", "activation")
    return name


def check_refused(section: Section) -> None:
    """Raise for a key that asks for what is not here."""
    for key, neutral in REFUSED.get(section.name, {}).items():
        if not section.has(key):
            continue
        text = section.text(key)
        if neutral is None or (text != neutral if isinstance(neutral, str) else section.decimal(key, 0) != neutral):
            raise section.failure(f"{key}={text[:40]}, for which no layer here stands", "it cannot be imported", key)


def _strides(section: Section, least: int = 1) -> tuple[int, int]:
    """(down, across)."""
    both = section.whole("stride", 1, least)
    return section.whole("stride_y", both, least), section.whole("stride_x", both, least)


# ------------------------------------------------------------------------------------- convolutions, dense layers


def _convolutional(here: Here) -> Planned:
    section, (height, width, channels) = here.section, here.shape
    filters, size = section.whole("filters", least=1), section.whole("size", 1, 1)
    groups, strides = section.whole("groups", 1, 1), _strides(section)
    dilation = 1 if size == 1 else section.whole("dilation", 1, 1)
    padding = size // 2 if section.whole("pad", 0) else section.whole("padding", 0, 0)
    if channels % groups or filters % groups:
        raise section.failure(
            f"{groups} groups of {channels} channels and {filters} filters", "wanted a divisor of both", "groups"
        )
    if dilation > 1 and (2 * padding != size - 1 or max(strides) > 1):
        raise section.failure(f"dilation={dilation} of size={size}", "wanted pad=1, an odd size and stride=1 with it")
    if padding > MAX_SIDE:
        raise section.failure(f"padding={padding}", f"wanted up to {MAX_SIDE}", "padding")
    norm = bool(section.whole("batch_normalize", 0) or section.whole("cbn", 0))
    shape = (
        (height + 2 * padding - size) // strides[0] + 1 if height + 2 * padding >= size else 0,
        (width + 2 * padding - size) // strides[1] + 1 if width + 2 * padding >= size else 0,
        filters,
    )
    return here.gives(
        shape,
        floats=filters * (4 if norm else 1) + filters * (channels // groups) * size * size,
        size=size, strides=strides, groups=groups, dilation=dilation, padding=padding * dilation, norm=norm,
        # TensorFlow filters each channel by itself with equal strides only, and with one dilation or one stride.
        depthwise=groups == channels > 1 and strides[0] == strides[1],
        flipped=bool(section.whole("flipped", 0)),
    )  # fmt: skip


def _connected(here: Here) -> Planned:
    units, inputs = here.section.whole("output", least=1), math.prod(here.shape)
    norm = bool(here.section.whole("batch_normalize", 0))
    return here.gives((1, 1, units), floats=units * (4 if norm else 1) + units * inputs, norm=norm)


def _local(here: Here) -> Planned:
    """Its `pad` is a number of pixels, and counts as (size - 1) / 2 for the size of the map."""
    section, (height, width, channels) = here.section, here.shape
    filters, size = section.whole("filters", least=1), section.whole("size", 1, 1)
    stride, pad = section.whole("stride", 1, 1), section.whole("pad", 0, 0)
    if pad and 2 * pad != size - 1:
        raise section.failure(f"pad={pad} with size={size}", "wanted pad=0, or half of an odd size", "pad")
    less = 1 if pad else size
    if min(height, width) < less:
        raise section.failure(f"size={size} on a map of {by(here.shape)}", "wanted a smaller size", "size")
    shape = ((height - less) // stride + 1, (width - less) // stride + 1, filters)
    floats = math.prod(shape) * (1 + size * size * channels)
    return here.gives(shape, floats=floats, size=size, stride=stride, padding=pad)


# --------------------------------------------------------------------------------------------------------- pools


def _pool(here: Here) -> Planned:
    """The window of place i begins at i · stride - padding / 2, rounded down; what lies outside does not count."""
    section, (height, width, channels) = here.section, here.shape
    strides = _strides(section)
    size = section.whole("size", section.whole("stride", 1, 1), 1)
    padding = section.whole("padding", size - 1, 0)
    if padding > size - 1:
        raise section.failure(f"padding={padding} with size={size}", "wanted less than the size", "padding")
    if min(height, width) + padding < size:
        raise section.failure(f"size={size} on a map of {by(here.shape)}", "wanted a smaller size", "size")
    outputs = tuple(
        (side + padding - size) // stride + 1 for side, stride in zip((height, width), strides, strict=True)
    )
    how = _pool_padding((height, width), outputs, size, strides, padding)
    shape = (outputs[0], outputs[1], channels)
    return here.gives(shape, size=size, strides=strides, how=how, late=(size - 1) // 2 - padding // 2)


def _pool_padding(
    sides: tuple[int, ...], outputs: tuple[int, ...], size: int, strides: tuple[int, ...], padding: int
) -> str:
    """How Keras pools so: `valid`, `same`, or `thinned`, at every place and then at every stride-th."""
    every = list(zip(sides, outputs, strides, strict=True))
    if padding // 2 == 0 and all(out == (side - size) // stride + 1 for side, out, stride in every):
        return "valid"
    total = [max((out - 1) * stride + size - side, 0) for side, out, stride in every]
    like_same = [out == -(-side // stride) for side, out, stride in every]
    if all(like_same) and all(most // 2 == padding // 2 for most in total):
        return "same"
    return "thinned"


def _avgpool(here: Here) -> Planned:
    return here.gives((1, 1, here.shape[2]))


def _upsample(here: Here) -> Planned:
    """A negative stride adds up squares instead."""
    section, (height, width, channels) = here.section, here.shape
    stride = section.whole("stride", 2)
    scale = section.decimal("scale", 1)
    if stride == 0 or abs(stride) > MAX_SIDE:
        raise section.failure(f"stride={stride}", "wanted 1, 2, …", "stride")
    if stride > 0:
        return here.gives((height * stride, width * stride, channels), stride=stride, scale=scale)
    if height % stride or width % stride:
        raise section.failure(f"stride={stride} on a map of {by(here.shape)}", "wanted a divisor", "stride")
    return here.gives((height // -stride, width // -stride, channels), stride=stride, scale=scale)


def _reorg(here: Here) -> Planned:
    """Squares of places become channels; [reorg] in Darknet's own order, [reorg3d] square by square."""
    section, (height, width, channels) = here.section, here.shape
    stride = section.whole("stride", 1, 1)
    if height % stride or width % stride or (section.name == "reorg" and channels % stride**2):
        raise section.failure(f"stride={stride} on a map of {by(here.shape)}", "wanted sides it divides", "stride")
    return here.gives((height // stride, width // stride, channels * stride**2), stride=stride)


# ------------------------------------------------------------------------------------------------ several sources


def _sources(here: Here, key: str) -> tuple[int, ...]:
    numbers = here.section.wholes(key)
    if len(numbers) > MAX_LIST:
        raise here.section.failure(f"{key} with {len(numbers)} layers", f"wanted up to {MAX_LIST}", key)
    return tuple(here.reference(key, index) for index in numbers)


def _route(here: Here) -> Planned:
    """Side by side; of `groups` equal parts of each, the one with `group_id`."""
    section, sources = here.section, _sources(here, "layers")
    groups, group = section.whole("groups", 1, 1), section.whole("group_id", 0, 0)
    shapes = [here.of(source) for source in sources]
    if len({shape[:2] for shape in shapes}) > 1:
        raise section.failure(
            f"joins maps of {' and '.join(by(shape) for shape in shapes[:4])}", "wanted one height and width", "layers"
        )
    if group >= groups or any(shape[2] % groups for shape in shapes):
        raise section.failure(
            f"part {group} of {groups} of {shapes[0][2]} channels", "wanted a part below a divisor", "groups"
        )
    channels = sum(shape[2] // groups for shape in shapes)
    return here.gives((*shapes[0][:2], channels), sources, groups=groups, group=group)


def _shortcut(here: Here) -> Planned:
    """Sources with more channels lose the last, those with fewer get zeros; those twice as large are thinned."""
    section, shape = here.section, here.shape
    sources = _sources(here, "from")
    for source in sources:
        theirs = here.of(source)
        steps = {theirs[axis] / shape[axis] for axis in (0, 1)}
        if len(steps) > 1 or not steps.pop().is_integer():
            raise section.failure(f"adds a map of {by(theirs)} to one of {by(shape)}", "wanted one size", "from")
    weighted, normalized = section.text("weights_type", "none"), section.text("weights_normalization", "none")
    per = {"none": 0, "per_feature": 1, "per_layer": 1, "per_channel": shape[2]}
    if weighted not in per:
        raise section.failure(f"weights_type={weighted[:40]}", f"wanted one of {', '.join(per)}", "weights_type")
    known = {"none": "none", "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}
    if normalized not in known:
        raise section.failure(
            f"weights_normalization={normalized[:40]}", f"wanted one of {', '.join(known)}", "weights_normalization"
        )
    scales = section.decimal("alpha", 1), section.decimal("beta", 1)
    if scales != (1, 1) and (weighted != "none" or any(here.of(source) != shape for source in sources)):
        raise section.failure(f"alpha={scales[0]:g} and beta={scales[1]:g}", "wanted maps of one shape with them")
    floats = (len(sources) + 1) * per[weighted]
    return here.gives(
        shape, (here.number - 1, *sources), floats, weighted=per[weighted] > 0,
        normalized=known[normalized], scales=scales,
    )  # fmt: skip


def _scale_channels(here: Here) -> Planned:
    """The map before, of one place or of one channel, times an earlier one."""
    section, shape = here.section, here.shape
    (source,) = _one(here)
    theirs = here.of(source)
    wanted = (*theirs[:2], 1) if section.whole("scale_wh", 0) else (1, 1, theirs[2])
    if shape != wanted:
        raise section.failure(f"scales {by(theirs)} by {by(shape)}", f"wanted {by(wanted)}", "from")
    return here.gives(theirs, (here.number - 1, source))


def _sam(here: Here) -> Planned:
    (source,) = _one(here)
    if here.of(source) != here.shape:
        raise here.section.failure(
            f"multiplies {by(here.of(source))} by {by(here.shape)}", "wanted maps of one shape", "from"
        )
    return here.gives(here.shape, (here.number - 1, source))


def _one(here: Here) -> tuple[int, ...]:
    sources = _sources(here, "from")
    if len(sources) != 1:
        raise here.section.failure(f"from {len(sources)} layers", "wanted one", "from")
    return sources


# ------------------------------------------------------------------------------------------------------ the rest


def _same(here: Here) -> Planned:
    return here.gives(here.shape)


def _dropout(here: Here) -> Planned:
    share = here.section.decimal("probability", 0.2)
    if not 0 <= share < 1:
        raise here.section.failure(f"probability={share:g}", "wanted 0 … 1", "probability")
    return here.gives(here.shape, share=share)


def _batchnorm(here: Here) -> Planned:
    return here.gives(here.shape, floats=4 * here.shape[2])


def _crop(here: Here) -> Planned:
    """The middle; and 2 x - 1, but for `noadjust`."""
    section, (height, width, channels) = here.section, here.shape
    shape = (section.whole("crop_height", least=1), section.whole("crop_width", least=1), channels)
    if shape[0] > height or shape[1] > width:
        raise section.failure(f"{by(shape)} out of {by(here.shape)}", "wanted no larger part", "crop_height")
    return here.gives(shape, adjust=not section.whole("noadjust", 0))


def _softmax(here: Here) -> Planned:
    """Over all numbers, or over each of `groups` equal parts, or, `spatial`, over the channels of each place."""
    section, groups = here.section, here.section.whole("groups", 1, 1)
    temperature, spatial = section.decimal("temperature", 1), bool(section.decimal("spatial", 0))
    if math.prod(here.shape) % groups or (spatial and groups > 1):
        raise section.failure(f"{groups} groups of {by(here.shape)}", "wanted a divisor", "groups")
    if temperature <= 0:
        raise section.failure(f"temperature={temperature:g}", "wanted more than 0", "temperature")
    return here.gives(here.shape, groups=groups, temperature=temperature, spatial=spatial)


# --------------------------------------------------------------------------------------------------------- heads


def _yolo(here: Here) -> Planned:
    section = here.section
    classes, every = section.whole("classes", least=1), section.whole("num", least=1)
    mask = section.wholes("mask") if section.has("mask") else tuple(range(min(every, MAX_LIST)))
    if not all(0 <= place < every for place in mask):
        raise section.failure(f"mask={mask}", f"wanted numbers below num={every}", "mask")
    anchors = _anchors(section, every)
    uncertain = section.name == "gaussian_yolo"
    _check_channels(here, len(mask), (9 if uncertain else 5) + classes)
    return here.gives(
        here.shape, classes=classes, anchors=tuple(anchors[place] for place in mask),
        xy_scale=section.decimal("scale_x_y", 1), activated=bool(section.whole("new_coords", 0)),
    )  # fmt: skip


def _region(here: Here) -> Planned:
    """YOLOv2's anchors are in cells."""
    section, (height, width, _) = here.section, here.shape
    classes, number = section.whole("classes", least=1), section.whole("num", least=1)
    if section.whole("coords", 4) != 4:
        raise section.failure(f"coords={section.text('coords')}", "wanted coords=4", "coords")
    _check_channels(here, number, 5 + classes)
    across, down = here.picture[1] / width, here.picture[0] / height
    anchors = tuple((x * across, y * down) for x, y in _anchors(section, number))
    return here.gives(here.shape, classes=classes, anchors=anchors, softmax=bool(section.whole("softmax", 0)))


def _anchors(section: Section, number: int) -> list[tuple[float, float]]:
    values = section.decimals("anchors")
    if len(values) < 2 * number or any(value <= 0 for value in values):
        raise section.failure(
            f"{len(values)} values of anchors for num={number}", f"wanted {2 * number} above 0", "anchors"
        )
    return list(zip(values[::2], values[1::2], strict=False))[:number]


def _check_channels(here: Here, anchors: int, values: int) -> None:
    if here.shape[2] != anchors * values:
        raise here.section.failure(
            f"is given {here.shape[2]} channels", f"wanted {anchors} anchors × {values} = {anchors * values} filters"
        )


def _detection(here: Here) -> Planned:
    """YOLOv1's: classes of all cells, then objectness of all boxes, then the boxes."""
    section = here.section
    side, number, classes = (section.whole(key, least=1) for key in ("side", "num", "classes"))
    if section.whole("coords", 4) != 4:
        raise section.failure(f"coords={section.text('coords')}", "wanted coords=4", "coords")
    wanted, given = side * side * (classes + 5 * number), math.prod(here.shape)
    if wanted != given:
        raise section.failure(
            f"is given {given:,} numbers", f"wanted {side}² × ({classes} + 5 × {number}) = {wanted:,}"
        )
    return here.gives(
        here.shape, side=side, boxes=number, classes=classes,
        roots=bool(section.whole("sqrt", 0)), softmax=bool(section.whole("softmax", 0)),
    )  # fmt: skip


RULES: dict[str, Rule] = {
    "convolutional": _convolutional, "connected": _connected, "local": _local, "maxpool": _pool,
    "local_avgpool": _pool, "avgpool": _avgpool, "upsample": _upsample, "reorg": _reorg, "reorg3d": _reorg,
    "route": _route, "shortcut": _shortcut, "scale_channels": _scale_channels, "sam": _sam, "dropout": _dropout,
    "batchnorm": _batchnorm, "activation": _same, "cost": _same, "empty": _same, "crop": _crop, "softmax": _softmax,
    "yolo": _yolo, "gaussian_yolo": _yolo, "region": _region, "detection": _detection,
}  # fmt: skip
