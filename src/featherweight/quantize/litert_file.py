"""A float32 LiteRT file, and the quantized files that are made of it.

Static int8 is TensorFlow's own: the quantizer behind its converter takes any float `.tflite` with the ranges of its
activations written in, and the names of operators to leave. Weights and activations are int8, the softmax among them.
Where the first and the last operator are int8, the file takes and gives bytes, a pixel as its own code. (Google's
litert-quantizer 0.11 needs no TensorFlow, but has no int8 for a dozen operators of networks that tell places apart, as
TILE, LEAKY_RELU and SPACE_TO_BATCH_ND, and goes with one version of ai-edge-litert only.)

The other precisions are written here, operator by operator, and need LiteRT alone.

In scope: the graph. Not aware of: what pictures show, artifacts on disk. Imports artifact, errors, progress and its
neighbours; ai_edge_litert and tensorflow where used.
"""

import contextlib
import importlib.util
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import ExportError, SettingError
from featherweight.progress import quiet
from featherweight.quantize.bias import channel_means, mean_change
from featherweight.quantize.flatbuffer import (
    WEIGHTS,
    array_of,
    float_operators,
    int8_weights,
    is_constant,
    kind_of,
    operator_code,
    read_model,
    schema,
    set_codes,
    set_data,
    set_float16,
    text,
    weighted,
    written,
)
from featherweight.quantize.layers import Layer, Made, Operator, layers_of
from featherweight.quantize.onnx_dynamic import quantized_weights
from featherweight.quantize.ranges import FULL_PICTURE, Range
from featherweight.quantize.settings import QuantizeSettings

HYBRID = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # these have kernels of int8 weights and float input
PASSING = frozenset(
    [
        "AVERAGE_POOL_2D", "EXPAND_DIMS", "GATHER", "MAX_POOL_2D", "MIRROR_PAD", "PAD", "PADV2", "RELU", "RELU6",
        "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE",
        "TRANSPOSE", "UNPACK",
    ]
)  # fmt: skip
ELEMENTWISE = frozenset(
    [
        "ADD", "DIV", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL",
        "PRELU", "SQRT", "SUB", "TANH",
    ]
)  # fmt: skip


# XNNPACK refuses a file, or ends the process, where the steps of what an operator takes and gives are too far apart: as
# where a channel died in training and its range is nothing. These are the ratios that it allows, each halved.
MOST_PRODUCT = 2.0**7  # step of the input times that of the weights, over the output's
MOST_SWISH = 2.0**6  # step of the input over the output's
MOST_SUM, LEAST_SUM = 2.0**7, 2.0**-9


@dataclass(frozen=True)
class LiteRTFile:
    """The file's bytes and its layers."""

    name: str
    data: bytes
    layers: tuple[Layer, ...]

    @property
    def ends(self) -> frozenset[str]:
        """The outputs, and what the operators that make them take."""
        graph = read_model(self.data).subgraphs[0]
        outputs = {int(end) for end in graph.outputs}
        makers = [one for one in graph.operators if outputs.intersection(int(end) for end in one.outputs)]
        return frozenset(text(graph.tensors[place]) for place in (*outputs, *(int(one.inputs[0]) for one in makers)))

    def tensors(self, pictures: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Every float activation by name, for each picture (h, w, 3) in turn."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        model = read_model(self.data)
        watched = {
            text(tensor): place for place, tensor in enumerate(model.subgraphs[0].tensors)
            if tensor.type == schema().TensorType.FLOAT32 and not is_constant(model, tensor)
        }  # fmt: skip
        with quiet():
            interpreter = Interpreter(
                model_content=self.data,
                num_threads=os.cpu_count(),
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            interpreter.allocate_tensors()
        entry = interpreter.get_input_details()[0]["index"]
        for picture in pictures:
            interpreter.set_tensor(entry, picture[None].astype(np.float32))
            interpreter.invoke()
            yield {name: interpreter.get_tensor(place) for name, place in watched.items()}

    def int8(
        self, ranges: Mapping[str, Range], per_channel: bool, skip: Collection[str], only: Layer | None = None
    ) -> Made:
        """The file with int8 weights and activations, and bytes at both ends where their operators are int8.

        Args:
            ranges: of the activations, by name.
            per_channel: a scale for each output channel of the weights.
            skip: operators that stay float.
            only: the one layer that does not.

        Raises:
            ExportError: TensorFlow is absent, or its quantizer fails.
        """
        if importlib.util.find_spec("tensorflow") is None:
            raise ExportError(
                f"int8 of {self.name} needs TensorFlow, whose quantizer makes it; pip install 'featherweight[train]', "
                "or take int8-dynamic"
            )
        denied = set(skip)
        if only is not None:
            denied |= {member for layer in self.layers if layer is not only for member in layer.members}
        data = _tensorflow_int8(self.name, _with_ranges(self.data, ranges), per_channel, denied)
        floats = float_operators(read_model(data)) if only is None else ()
        return Made(data, tuple((name, f"LiteRT has no int8 {kind}") for name, kind in floats if name not in denied))

    def dynamic(self, per_channel: bool, skip: Collection[str]) -> Made:
        """The file with int8 weights whose activations are quantized while it runs."""
        model = read_model(self.data)
        left = []
        for name, kind, tensor in weighted(model, skip):
            if kind not in HYBRID:
                left.append((name, f"{kind} has no kernel of int8 weights and float input"))
                continue
            weights = array_of(model, tensor)
            axes = [axis for axis in range(weights.ndim) if axis != WEIGHTS[kind] or not per_channel]
            values, scales = quantized_weights(weights, tuple(axes))
            set_codes(model, tensor, values, scales, WEIGHTS[kind])
        return Made(written(model), tuple(left))

    def float16(self, skip: Collection[str]) -> Made:
        """The file with its weights stored in 16 bits, and an operator each that makes them float32 again."""
        model = read_model(self.data)
        graph, names = model.subgraphs[0], schema()
        stored = {tensor: set_float16(model, tensor) for _, _, tensor in weighted(model, skip)}
        for operator in graph.operators:
            operator.inputs = [stored.get(int(place), int(place)) for place in operator.inputs]
        code = operator_code(model, names.BuiltinOperator.DEQUANTIZE)
        for source, target in stored.items():
            maker = names.OperatorT()
            maker.opcodeIndex, maker.inputs, maker.outputs = code, [source], [target]
            graph.operators.insert(0, maker)
        return Made(written(model))

    def eased(self, pictures: NDArray[np.uint8], settings: QuantizeSettings) -> "LiteRTFile":
        """Itself.

        Raises:
            SettingError: what only ONNX files can do.
        """
        if settings.smooth or not settings.inner_codes:
            raise SettingError(f"smooth or no inner codes for {self.name}, a LiteRT file; wanted ONNX")
        return self

    def corrected(self, data: bytes, pictures: NDArray[np.uint8]) -> "LiteRTFile":
        """With biases that make up for the mean error of int8 weights, see `bias`.

        Args:
            data: the int8 file made of this one.
            pictures: (n, h, w, 3).
        """
        model, weights = read_model(self.data), int8_weights(read_model(data))
        tensors = model.subgraphs[0].tensors
        chosen = [
            (kind, int(operator.inputs[0]), weights[name] - array_of(model, int(operator.inputs[1])), bias)
            for name, kind, operator, bias in _biased(model) if name in weights
        ]  # fmt: skip
        means = channel_means(self.tensors(pictures), {text(tensors[source]) for _, source, _, _ in chosen}, axis=-1)
        for kind, source, change, bias in chosen:
            by_output = change.transpose(3, 1, 2, 0) if kind == "DEPTHWISE_CONV_2D" else change
            kernel = by_output.reshape(len(by_output), -1, by_output.shape[-1]).sum(axis=1)
            new = array_of(model, bias) - mean_change(kernel, means[text(tensors[source])])
            set_data(model, bias, schema().TensorType.FLOAT32, new.astype(np.float32))
        return replace(self, data=written(model))


def open_litert(artifact: Artifact) -> LiteRTFile:
    """Read the file of a float32 artifact.

    Raises:
        ExportError: LiteRT is not installed, or the file has several graphs.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ExportError(f"cannot quantize {artifact.name}: no LiteRT here; pip install 'featherweight[litert]'")
    data = artifact.model_path.read_bytes()
    model = read_model(data)
    if len(model.subgraphs) != 1:
        raise ExportError(f"cannot quantize {artifact.name}: it has {len(model.subgraphs)} graphs; wanted one")
    return LiteRTFile(artifact.name, data, layers_of(_operators(model), PASSING, ELEMENTWISE))


def _operators(model: Any) -> Iterator[Operator]:
    """Those that make float activations. An operator is known by the tensor that it makes."""
    tensors = model.subgraphs[0].tensors
    for one in model.subgraphs[0].operators:
        outputs = tuple(text(tensors[int(place)]) for place in one.outputs)
        inputs = [tensors[int(place)] for place in one.inputs if place >= 0]
        taken = tuple(text(tensor) for tensor in inputs if not is_constant(model, tensor))
        if taken and tensors[int(one.outputs[0])].type == schema().TensorType.FLOAT32:
            yield Operator(outputs[0], kind_of(model, one), taken, outputs)


def _biased(model: Any) -> list[tuple[str, str, Any, int]]:
    """(name, kind, operator, tensor) of the operators with a bias of their own, which is the tensor."""
    graph = model.subgraphs[0]
    users = Counter(int(place) for operator in graph.operators for place in operator.inputs)
    found = []
    for operator in graph.operators:
        kind, bias = kind_of(model, operator), int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        if kind in HYBRID and bias >= 0 and is_constant(model, graph.tensors[bias]) and users[bias] == 1:
            found.append((text(graph.tensors[int(operator.outputs[0])]), kind, operator, bias))
    return found


# --------------------------------------------------------------------------------------------------- TensorFlow


def _with_ranges(data: bytes, ranges: Mapping[str, Range]) -> bytes:
    """The file with ranges beside its activations, as calibration would write them."""
    model = read_model(data)
    graph, names = model.subgraphs[0], schema()
    spans = dict(ranges) | {text(graph.tensors[int(graph.inputs[0])]): FULL_PICTURE}
    _widen(model, spans)
    for tensor in graph.tensors:
        if text(tensor) in spans:
            parameters, span = names.QuantizationParametersT(), spans[text(tensor)]
            parameters.min, parameters.max = [span.low], [span.high]
            tensor.quantization = parameters
    return written(model)


def _widen(model: Any, spans: dict[str, Range]) -> None:
    """Widen ranges, in place, that XNNPACK would refuse. No step becomes coarser than what it is computed from allows:
    a product comes in steps of its own, which are wider still, and a summand is rounded to the sum's steps anyway.
    """
    tensors = model.subgraphs[0].tensors

    def width(place: int) -> float:
        span = spans.get(text(tensors[place]))
        return 0.0 if span is None else max(span.high, 0.0) - min(span.low, 0.0)

    def widen(place: int, least: float) -> None:
        name = text(tensors[place])
        if name in spans and width(place) < least:
            spans[name] = spans[name].at_least(least)

    for operator in model.subgraphs[0].operators:
        kind, output = kind_of(model, operator), int(operator.outputs[0])
        inputs = [int(place) for place in operator.inputs]
        if kind in HYBRID and is_constant(model, tensors[inputs[1]]):
            greatest = float(np.abs(array_of(model, inputs[1])).max(initial=0.0)) / 127
            widen(output, width(inputs[0]) * greatest / MOST_PRODUCT)
        elif kind == "HARD_SWISH":
            widen(output, width(inputs[0]) / MOST_SWISH)
        elif kind in ("ADD", "SUB"):
            widen(output, max(map(width, inputs)) / MOST_SUM)
            for place in inputs:
                widen(place, width(output) * LEAST_SUM)


def _tensorflow_int8(name: str, data: bytes, per_channel: bool, denied: Collection[str]) -> bytes:
    """What `TFLiteConverter` does once it has calibrated."""
    try:
        with quiet():
            import tensorflow as tf
            from tensorflow.lite.python.convert import mlir_quantize
            from tensorflow.lite.python.util import modify_model_io_type

            made = mlir_quantize(data, disable_per_channel=not per_channel, denylisted_nodes=set(denied))
            for ends in ((tf.uint8, tf.float32), (tf.float32, tf.uint8)):
                with contextlib.suppress(ValueError):  # that end is float
                    made = modify_model_io_type(made, *ends)
            return bytes(made)
    except Exception as error:  # the quantizer raises whatever its parts raise
        raise ExportError(f"cannot quantize {name}: {' '.join(str(error).split())[:300]}") from error
