"""Unstructured pruning: the weights of least magnitude become 0, wherever they stand.

The masks of the tutorials: Han et al. 2015, arXiv 1506.02626. What it brings and what not:

- A dense kernel computes with zeros as fast as with any other number. None of the runtimes here skips them, so that the
  latency stays as it is, and so do MACs, memory and the size of the file.
- A file with many zeros packs better. `compressed_bytes` says by how much, which counts where models are downloaded.

To make a network faster, remove whole channels.

    thin, step = sparsify(model, 0.8)
    compressed_bytes("exported")         # of the file that `thin` was exported to

In scope: which weights. Not aware of: training on (where the zeros must be kept). Imports artifact, errors and models;
keras where it is used.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.artifact import Step, read_artifact
from featherweight.errors import ArtifactError, SettingError
from featherweight.models.copying import copy_weights, every_layer, model_inside

if TYPE_CHECKING:
    import keras

SCOPES = ("global", "layer")
PARTS = {
    "kernels": ("kernel", "depthwise_kernel", "pointwise_kernel"),
    "biases": ("bias",),
    "norms": ("gamma", "beta"),
}
NOTE = (
    "dense kernels compute with zeros as fast as with any other number, and the file has the same size; "
    "what shrinks is the file after compression"
)
LEVEL = 9  # zlib's strongest: a file is packed once and downloaded often
CHUNK_BYTES = 1 << 20


def sparsify(
    model: "keras.Model",
    share: float,
    scope: str = "global",
    parts: Sequence[str] = ("kernels",),
    spare: Sequence[str] | None = None,
) -> tuple["keras.Model", Step]:
    """A copy with the share of weights that are nearest to 0 set to 0 (L1).

    Zeros make nothing faster and no file smaller by themselves: see above. The step has the number of zeros, of the
    weights that were looked at and of all weights.

    Args:
        model: any that Keras can clone, with nested models too; unchanged.
        share: of the weights that are looked at (at least 0, under 1).
        scope: "global": one threshold for all, so that layers with small weights lose more; "layer": each array loses
            the same share.
        parts: what is looked at: "kernels", "biases", "norms" (the factors and offsets of normalizations).
        spare: names of layers that are left alone; by default the first and the last with a kernel, which have few
            weights and much to say.

    Raises:
        SettingError: a share, scope, part or name that cannot be, or nothing to set to 0.
    """
    import keras

    _check(share, scope, parts)
    spared = _spared(model, spare)
    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    looked_into = [layer for layer in every_layer(copy) if layer.name not in spared]
    variables = [variable for layer in looked_into for variable in _variables(layer, parts)]
    if not variables:
        raise SettingError(
            f"{model.name} has no {' or '.join(parts)} outside of the spared layers; wanted a built model with some"
        )
    groups = [variables] if scope == "global" else [[variable] for variable in variables]
    looked_at = sum(_set_to_zero(group, share) for group in groups)
    settings = {
        "share": share,
        "scope": scope,
        "parts": list(parts),
        "criterion": "L1",
        "zeros": sum(int(np.sum(variable.numpy() == 0)) for variable in variables),
        "looked_at": looked_at,
        "weights": model.count_params(),
        "note": NOTE,
    }
    return copy, Step("sparsify", settings, tuple(spared.items()))


def compressed_bytes(path: str | Path) -> int:
    """The size of a model file packed by zlib at level 9, in bytes: about what a `.zip`, an app's package or a web
    server makes of it. What is packed is the file as it is stored.

    Args:
        path: an artifact folder, or any file.

    Raises:
        ArtifactError: nothing there, or no artifact.
    """
    path = read_artifact(path).model_path if Path(path).is_dir() else Path(path)
    packer = zlib.compressobj(LEVEL)
    try:
        with path.open("rb") as file:
            total = sum(len(packer.compress(chunk)) for chunk in iter(lambda: file.read(CHUNK_BYTES), b""))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; wanted an artifact folder or a file") from error
    return total + len(packer.flush())


def _check(share: float, scope: str, parts: Sequence[str]) -> None:
    if not 0 <= share < 1:
        raise SettingError(f"share {share:g}; wanted at least 0 and under 1, for example 0.8")
    if scope not in SCOPES:
        raise SettingError(f"scope {scope!r}; wanted {' or '.join(SCOPES)}")
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise SettingError(f"parts {', '.join(unknown) or 'none'}; known: {', '.join(PARTS)}")


def _spared(model: "keras.Model", names: Sequence[str] | None) -> dict[str, str]:
    """Layer → why it is left alone."""
    layers = list(every_layer(model))
    if names is None:
        with_kernel = [layer.name for layer in layers if _variables(layer, ("kernels",))]
        first = dict.fromkeys(with_kernel[:1], "the first layer with a kernel")
        return first | dict.fromkeys(with_kernel[-1:], "the last layer with a kernel")
    unknown = set(names) - {layer.name for layer in layers}
    if unknown:
        raise SettingError(
            f"{model.name} has no layer {min(unknown)!r}; wanted names of layers as its summary has them"
        )
    return dict.fromkeys(names, "spared as asked")


def _variables(layer: Any, parts: Sequence[str]) -> list[Any]:
    """The layer's own that are looked at, not those of layers inside of it."""
    names = {name for part in parts for name in PARTS[part]}
    return [one for one in layer.weights if one.name in names] if model_inside(layer) is None else []


def _set_to_zero(variables: Sequence[Any], share: float) -> int:
    """The share of all their numbers that is nearest to 0, in place on our copy; returns how many numbers there are."""
    arrays = [variable.numpy() for variable in variables]
    flat = np.concatenate([array.ravel() for array in arrays])
    count = round(share * len(flat))
    if count:
        flat[np.argpartition(np.abs(flat), count - 1)[:count]] = 0
    ends = np.cumsum([array.size for array in arrays])[:-1]
    for variable, new in zip(variables, np.split(flat, ends), strict=True):
        variable.assign(new.reshape(variable.shape))
    return len(flat)
