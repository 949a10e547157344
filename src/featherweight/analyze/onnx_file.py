"""An `.onnx` file, opened with care: caps, checks, and the shapes of all its tensors.

Files of strangers are read: external data is refused, sizes are capped, every tensor must be made before it is read,
and whatever is wrong is one line. Shapes come from ONNX's own inference on a copy without the weights' numbers.

Imports errors and this folder; onnx where it is used.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.analyze.graph import MAX_FILE_BYTES, MAX_RANK, MAX_TENSOR_BYTES, Shape, Tensor
from featherweight.analyze.onnx_sizes import MAX_ROUNDS, computed, replace_computed
from featherweight.analyze.onnx_wire import TooMuch, WireError, count_nodes
from featherweight.errors import ArtifactError, SettingError

MAX_NODES = 20_000
MAX_FIELDS = 1_000_000
MAX_DEPTH = 8  # of graphs within graphs
# Payloads up to this size may be sizes and axes that shapes follow from; larger ones are weights.
SMALL_ELEMENTS = 64


@dataclass(frozen=True)
class OnnxFile:
    """A file that was checked. `model` is onnx.ModelProto."""

    model: Any
    shapes: dict[str, tuple[Shape, str]]  # tensor → (shape as the file has it, dtype)
    sizes: dict[str, Shape]  # tensors that are arithmetic on sizes, and were computed → their shapes
    notes: tuple[str, ...]


def open_onnx(path: Path, input_size: tuple[int, int] | None = None) -> OnnxFile:
    """Read, check and infer; arguments and errors as in `onnx_reader.read_onnx`."""
    model = _load(path)
    _check(model, path)
    notes = _fix_input(model, path, input_size)
    shapes, sizes = _infer(model, path)
    return OnnxFile(model, shapes, sizes, tuple(notes))


def _load(path: Path) -> Any:
    import onnx

    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"{path} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    data = path.read_bytes()
    try:
        count_nodes(data, MAX_NODES, MAX_FIELDS)
    except TooMuch as error:
        raise ArtifactError(f"{path} has {error}, more than a light network needs; nothing of it is read") from error
    except WireError as error:
        raise ArtifactError(f"{path} is no ONNX file or is damaged: {error}; export the model again") from error
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's classes of error are not public
        raise ArtifactError(
            f"{path} is no ONNX file or is damaged: {one_line(error)}; export the model again"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise ArtifactError(f"{path} holds no graph; wanted an ONNX model. Export the model again")
    if not model.opset_import:
        raise ArtifactError(f"{path} was cut off: it does not say which operator set it uses; fetch it again")
    return model


def _check(model: Any, path: Path) -> None:
    """Hold the caps, refuse data outside the file, and see that every tensor is made before it is read."""
    nodes, depth = _count(model.graph, 1)
    if nodes > MAX_NODES or depth > MAX_DEPTH:
        raise ArtifactError(
            f"{path} has {nodes} operators, {depth} graphs deep; at most {MAX_NODES} and {MAX_DEPTH} are read"
        )
    _check_names(model.graph, path)
    for tensor in all_tensors(model.graph):
        _check_tensor(tensor, path)
    known = {""} | {value.name for value in (*model.graph.input, *model.graph.initializer)}
    known |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    for node in model.graph.node:
        absent = [name for name in node.input if name not in known]
        if absent:
            raise ArtifactError(f"{path} is damaged: {node.op_type} reads {absent[0]!r}, which nothing made before it")
        made = [name for name in node.output if name]
        twice = [name for place, name in enumerate(made) if name in known or name in made[:place]]
        if twice:
            raise ArtifactError(f"{path} is damaged: {node.op_type} makes {twice[0]!r}, which is there already")
        known.update(made)
    absent = [value.name for value in model.graph.output if value.name not in known]
    if absent:
        raise ArtifactError(f"{path} is damaged: nothing makes its output {absent[0]!r}")


def all_tensors(graph: Any) -> Iterator[Any]:
    """Every tensor with numbers in the file, also in attributes and in graphs within."""
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            sparse += attribute.sparse_tensors
            for inner in graphs_within(attribute):
                yield from all_tensors(inner)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def graphs_within(attribute: Any) -> list[Any]:
    """The graphs that an attribute holds."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check_tensor(tensor: Any, path: Path) -> None:
    """Its numbers must be in this file, as many as its shape says: what they cost is told by the shape alone."""
    if tensor.data_location == 1 or tensor.external_data:
        raise ArtifactError(
            f"{path} keeps its weights in other files ({tensor.name!r}); save it as one file, "
            "onnx.save(model, path, save_as_external_data=False)"
        )
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > MAX_RANK:
        raise ArtifactError(f"{path} is damaged: {tensor.name!r} has the shape {list(tensor.dims)[:MAX_RANK]}")
    if tensor.data_type not in PAYLOADS:
        raise ArtifactError(f"{path} is damaged: {tensor.name!r} is of the type {tensor.data_type}")
    bits, typed, each = PAYLOADS[tensor.data_type]
    elements = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        wanted, held, unit = -(-elements * bits // 8), len(tensor.raw_data), "bytes"
    else:
        wanted, held, unit = -(-elements * each // 4), len(getattr(tensor, typed)), "numbers"
    if held < wanted:
        raise ArtifactError(
            f"{path} was cut off: {tensor.name!r} of the shape {list(tensor.dims)} has {held:,} {unit}, "
            f"wanted {wanted:,}; fetch it again"
        )


def _payloads() -> dict[int, tuple[int, str, int]]:
    """ONNX's number of a type → (bits in raw data, the field that holds it otherwise, entries there for four)."""
    narrow = {2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 9: 8, 10: 16, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 24: 8}
    packed = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}
    return {
        1: (32, "float_data", 4), 14: (64, "float_data", 8), 11: (64, "double_data", 4), 15: (128, "double_data", 8),
        7: (64, "int64_data", 4), 12: (32, "uint64_data", 4), 13: (64, "uint64_data", 4), 8: (0, "string_data", 4),
        **{code: (bits, "int32_data", 4) for code, bits in narrow.items()},
        **{code: (bits, "int32_data", bits // 2) for code, bits in packed.items()},
    }  # fmt: skip


PAYLOADS = _payloads()


def _check_names(graph: Any, path: Path) -> None:
    """Names are text: protobuf hands over bytes where they are no UTF-8."""
    for node in graph.node:
        attributes = (attribute.name for attribute in node.attribute)
        for name in (node.name, node.op_type, node.domain, *node.input, *node.output, *attributes):
            if not isinstance(name, str):
                raise ArtifactError(f"{path} is damaged: an operator is named {name[:40]!r}")
        if not any(node.output) or not node.op_type:
            raise ArtifactError(f"{path} is damaged: the operator {node.name!r} gives nothing")
    for value in (*graph.initializer, *graph.input, *graph.output):
        if not isinstance(value.name, str):
            raise ArtifactError(f"{path} is damaged: a tensor is named {value.name[:40]!r}")


def _count(graph: Any, depth: int) -> tuple[int, int]:
    """(operators, depth) of a graph and those within it."""
    nodes, deepest = len(graph.node), depth
    if depth > MAX_DEPTH:
        return nodes, deepest
    for node in graph.node:
        for attribute in node.attribute:
            for inner in graphs_within(attribute):
                more, deep = _count(inner, depth + 1)
                nodes, deepest = nodes + more, max(deepest, deep)
    return nodes, deepest


def _fix_input(model: Any, path: Path, input_size: tuple[int, int] | None) -> list[str]:
    """Write batch 1 and the given height and width into the inputs' open places; says what was assumed."""
    notes = []
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if value.name in weights or not sizes:
            continue
        given = [size.dim_value if size.HasField("dim_value") else None for size in sizes]
        if not given[0]:
            sizes[0].dim_value = 1
            notes.append(f"{value.name} leaves the batch open: taken as 1")
        places = _sides(given)
        if input_size is not None and places:
            for place, side in zip(places, input_size, strict=True):
                if given[place] not in (None, 0, side):
                    raise SettingError(f"{path} takes {given}, not {input_size[0]}×{input_size[1]}")
                sizes[place].dim_value = side
        open_places = [place for place in range(1, len(sizes)) if sizes[place].dim_value <= 0]
        if open_places:
            names = [size.dim_param or "?" if size.dim_value <= 0 else size.dim_value for size in sizes]
            raise SettingError(
                f"{path} leaves sizes of its input {value.name!r} open: {names}; "
                "give height and width with --input-size, for example 224"
            )
    return notes


def _sides(given: list[int | None]) -> tuple[int, int] | None:
    """Where height and width stand in a picture's shape: beside a channel axis of 1, 3 or 4."""
    if len(given) != 4:
        return None
    return (2, 3) if given[1] in (1, 3, 4) and given[3] not in (1, 3, 4) else (1, 2)


def _infer(model: Any, path: Path) -> tuple[dict[str, tuple[Shape, str]], dict[str, Shape]]:
    """(tensor → (shape, dtype) for all that can be inferred, tensors that are arithmetic on sizes → their shapes)."""
    slim = _without_payloads(model, path)
    found = _inferred(slim, path)
    done: dict[str, Shape] = {}
    for _ in range(MAX_ROUNDS if any(node.op_type == "Shape" for node in slim.graph.node) else 0):
        sizes = computed(slim.graph, found)
        if not sizes:
            break
        replace_computed(slim.graph, sizes)
        done.update((name, values.shape) for name, values in sizes.items())
        found = {**found, **_inferred(slim, path)}
    return found, done


def _inferred(slim: Any, path: Path) -> dict[str, tuple[Shape, str]]:
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(slim, check_type=False, strict_mode=False, data_prop=True)
    except Exception as error:  # onnx raises several classes, some of them private
        raise ArtifactError(f"{path} is damaged: shapes do not fit together: {one_line(error)}") from error
    found = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(size.HasField("dim_value") for size in tensor.shape.dim):
            shape = tuple(int(size.dim_value) for size in tensor.shape.dim)
            kept = Tensor(value.name, shape, dtype_name(tensor.elem_type))
            if any(size < 0 for size in shape) or kept.bytes > MAX_TENSOR_BYTES or len(shape) > MAX_RANK:
                raise ArtifactError(f"{path}: {value.name!r} would have the shape {list(shape)}: too large to be real")
            found[value.name] = (shape, kept.dtype)
    return found


def _without_payloads(model: Any, path: Path) -> Any:
    """The model with large weights as inputs of their shape, so that inference copies no numbers.

    Functions are left out: inference runs them call by call, and a few that call each other twice never end.
    """
    try:
        return _slim(model)
    except ValueError as error:  # text that is no UTF-8
        raise ArtifactError(f"{path} is damaged: {one_line(error)}; export the model again") from error


def _slim(model: Any) -> Any:
    import onnx

    slim = onnx.ModelProto(ir_version=model.ir_version)
    slim.opset_import.extend(model.opset_import)
    graph = slim.graph
    graph.name = "graph"
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    declared = {value.name for value in model.graph.input}
    graph.input.extend(model.graph.input)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL_ELEMENTS:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            value = graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = tensor.data_type
            value.type.tensor_type.shape.SetInParent()
            for size in tensor.dims:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    return slim


def dtype_name(code: int) -> str:
    """ONNX's number of a type as its name."""
    names = {
        1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
        10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 17: "float8", 18: "float8",
        19: "float8", 20: "float8", 21: "uint4", 22: "int4", 25: "uint2", 26: "int2",
    }  # fmt: skip
    return names.get(code, "other")


def one_line(error: Exception) -> str:
    """The error's text, short and on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
