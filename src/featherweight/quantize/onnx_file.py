"""A float32 ONNX file, and the quantized files that are made of it.

Static int8 is ONNX Runtime's (QDQ: float operators between QuantizeLinear and DequantizeLinear, which runtimes fuse):
weights int8, activations uint8. The softmax stays float: its input spans little and its output is the answer.

In scope: the graph. Not aware of: what pictures show, artifacts on disk. Imports artifact, errors and its neighbours;
onnx and onnxruntime where used.
"""

import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import ExportError
from featherweight.quantize.bias import channel_means, mean_change
from featherweight.quantize.layers import Layer, Made, Operator, layers_of
from featherweight.quantize.onnx_dynamic import store_float16, with_integer_products
from featherweight.quantize.onnx_ease import smoothed, without_inner_codes
from featherweight.quantize.onnx_protos import copied
from featherweight.quantize.ranges import FULL_PICTURE, Range
from featherweight.quantize.settings import QuantizeSettings

FLOAT_OPERATORS = ("Softmax",)
# The quantizer leaves these float where they stand alone.
PASSING = frozenset(
    [
        "AveragePool", "Clip", "Flatten", "Gather", "MaxPool", "Pad", "Relu", "Reshape", "Resize", "Slice", "Split",
        "Squeeze", "Transpose", "Unsqueeze",
    ]
)  # fmt: skip
ELEMENTWISE = frozenset(
    [
        "Add", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish", "Mul",
        "PRelu", "Pow", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
    ]
)  # fmt: skip
OLDEST_OPSET = 13  # the first whose QuantizeLinear knows channels
FLOAT = 1  # onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class OnnxFile:
    """Its graph, prepared for quantization: constants folded, batch norms fused, shapes known."""

    name: str
    model: Any  # onnx.ModelProto; never changed
    layers: tuple[Layer, ...]
    inner_codes: bool = True  # see `QuantizeSettings`

    @property
    def input(self) -> str:
        """The name of the picture."""
        return str(self.model.graph.input[0].name)

    @property
    def ends(self) -> frozenset[str]:
        """The outputs, and what the operators that make them take."""
        outputs = {value.name for value in self.model.graph.output}
        taken = (node.input[0] for node in self.model.graph.node if outputs.intersection(node.output))
        return frozenset([*outputs, *taken])

    def tensors(self, pictures: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Every float activation by name, for each picture (h, w, 3) in turn."""
        library = _library()
        watched = copied(self.model)
        known = {value.name for value in (*watched.graph.output, *watched.graph.input)}
        watched.graph.output.extend(v for v in watched.graph.value_info if v.name not in known and _is_float(v))
        options = library.SessionOptions()
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        with _failing_in_one_line(self.name):
            session = library.InferenceSession(watched.SerializeToString(), options, ["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
        for picture in pictures:
            fed = {self.input: picture[None].astype(np.float32)}
            with _failing_in_one_line(self.name):
                found = session.run(names, fed)
            yield fed | dict(zip(names, found, strict=True))

    def int8(
        self, ranges: Mapping[str, Range], per_channel: bool, skip: Collection[str], only: Layer | None = None
    ) -> Made:
        """The file with int8 weights and uint8 activations.

        Args:
            ranges: of the activations, by name.
            per_channel: a scale for each output channel of the weights.
            skip: operators that stay float.
            only: the one layer that does not.
        """
        _library()
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

        spans = {
            name: TensorData(lowest=np.array(span.low, np.float32), highest=np.array(span.high, np.float32))
            for name, span in (dict(ranges) | {self.input: FULL_PICTURE}).items()
        }
        kinds = {node.op_type for node in self.model.graph.node}
        left = [(kind, "its output is the answer") for kind in FLOAT_OPERATORS if kind in kinds]
        with _failing_in_one_line(self.name):
            quantizer = QDQQuantizer(
                copied(self.model),
                per_channel,
                False,
                QuantType.QInt8,
                QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, spans),
                [] if only is None else list(only.members),
                list(skip),
                sorted(kinds.difference(FLOAT_OPERATORS)),
                {},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        made = quantizer.model.model
        if not self.inner_codes:
            without_inner_codes(made)
        return Made(bytes(made.SerializeToString()), tuple(left))

    def dynamic(self, per_channel: bool, skip: Collection[str]) -> Made:
        """The file with 8-bit weights whose activations are quantized while it runs."""
        model = copied(self.model)
        left = with_integer_products(model, per_channel, skip)
        return Made(bytes(model.SerializeToString()), left)

    def float16(self, skip: Collection[str]) -> Made:
        """The file with its weights stored in 16 bits."""
        model = copied(self.model)
        store_float16(model, skip)
        return Made(bytes(model.SerializeToString()))

    def eased(self, pictures: NDArray[np.uint8], settings: QuantizeSettings) -> "OnnxFile":
        """Itself with equal outputs, as the settings want it for int8; pictures are (n, h, w, 3)."""
        model = self.model
        if settings.smooth:
            model, _ = smoothed(model, self.tensors(pictures), settings.per_channel)
        return replace(self, model=model, inner_codes=settings.inner_codes)

    def corrected(self, data: bytes, pictures: NDArray[np.uint8]) -> "OnnxFile":
        """With biases that make up for the mean error of int8 weights, see `bias`.

        Args:
            data: the int8 file made of this one.
            pictures: (n, h, w, 3).
        """
        import onnx

        weights = _dequantized_weights(onnx.load_from_string(data).graph)
        model = copied(self.model)
        constants = {one.name: one for one in model.graph.initializer}
        users = Counter(name for node in model.graph.node for name in node.input)
        chosen = [
            node for node in model.graph.node
            if node.op_type in ("Conv", "Gemm") and node.input[1] in weights
            and len(node.input) > 2 and node.input[2] in constants and users[node.input[2]] == 1
        ]  # fmt: skip
        means = channel_means(self.tensors(pictures), {node.input[0] for node in chosen}, axis=1)
        for node in chosen:
            source, weight, bias = node.input
            change = weights[weight] - onnx.numpy_helper.to_array(constants[weight])
            if node.op_type == "Gemm" and not any(one.name == "transB" and one.i for one in node.attribute):
                change = change.T
            wrong = mean_change(change.sum(axis=tuple(range(2, change.ndim))), means[source])
            new = onnx.numpy_helper.to_array(constants[bias]) - wrong
            constants[bias].CopyFrom(onnx.numpy_helper.from_array(new.astype(np.float32), bias))
        return replace(self, model=model)


def open_onnx(artifact: Artifact) -> OnnxFile:
    """Read and prepare the file of a float32 artifact.

    Raises:
        ExportError: it cannot be prepared, or is of too old an opset.
    """
    _library()
    from onnxruntime.quantization.quant_utils import get_opset_version, load_model_with_shape_infer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch, _failing_in_one_line(artifact.name):
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(artifact.model_path), str(prepared), skip_symbolic_shape=True)
        model = load_model_with_shape_infer(prepared)
        opset = get_opset_version(model)
    if opset < OLDEST_OPSET:
        raise ExportError(f"{artifact.name} is of ONNX opset {opset}; wanted {OLDEST_OPSET} or newer: export it again")
    _name_all(model.graph)
    return OnnxFile(artifact.name, model, layers_of(_operators(model.graph), PASSING, ELEMENTWISE))


def _operators(graph: Any) -> Iterator[Operator]:
    """Those that make float activations, without those that stay float."""
    floats = {value.name for value in (*graph.value_info, *graph.output) if _is_float(value)}
    constants = {one.name for one in graph.initializer}
    for node in graph.node:
        inputs = tuple(name for name in node.input if name and name not in constants)
        if node.op_type not in FLOAT_OPERATORS and inputs and floats.intersection(node.output):
            yield Operator(node.name, node.op_type, inputs, tuple(node.output))


def _name_all(graph: Any) -> None:
    """Give a name of its own to each operator without one: quantizers take and leave them by name."""
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
        seen.add(node.name)


def _dequantized_weights(graph: Any) -> dict[str, NDArray[np.float32]]:
    """What the int8 constants of a QDQ graph stand for, by the names that they had in the float graph."""
    import onnx

    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        codes, scale = constants[node.input[0]], constants[node.input[1]]
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        shape = [-1 if place == axis else 1 for place in range(codes.ndim)] if scale.ndim else [1] * codes.ndim
        found[node.input[0].removesuffix("_quantized")] = codes.astype(np.float32) * scale.reshape(shape)
    return found


def _is_float(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == FLOAT)


def _library() -> Any:
    """The library, without its telemetry."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the first import
    import onnxruntime

    return onnxruntime


@contextlib.contextmanager
def _failing_in_one_line(name: str) -> Iterator[None]:
    """The quantizer's work without its advice, which has been followed; its failure as one line."""
    chatter = logging.getLogger()
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # the quantizer raises whatever its parts raise
        raise ExportError(f"cannot quantize {name}: {' '.join(str(error).split())[:300]}") from error
    finally:
        chatter.setLevel(level)
