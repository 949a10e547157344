"""The pickles in files of torch, read without being run.

A pickle is a program for a small stack machine, and Python's own reader runs it: it imports what the program names
and calls it. The interpreter here knows only the operations that a dictionary of tensors needs. It builds
dictionaries, lists, tuples, numbers and text, and *describes* storages and tensors; four names are understood, none is
looked up, nothing is called. Each other operation and each other name is refused.

In scope: one pickle → plain values, `Storage` and `Tensor`. Not aware of: files, numbers.
Imports modelfile.
"""

import io
import math
import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.modelfile import one_line

MAX_DIMENSIONS = 16
# Torch before 1.6 names an optimizer's state by the addresses of parameters. Python hashes whole numbers to themselves
# only below 2^61 - 1; from there on a file could choose numbers that all hash alike.
MAX_INTEGER_NAME = 2**48
# NumPy multiplies the sizes of an empty array, too, and leaves the zeros out: 8 bytes each must stay below 2^63.
MAX_NUMBERS = 2**60
BFLOAT16 = "bfloat16"  # numpy has none: read as uint16 and widened to float32, which is exact
STORAGE_TYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1", "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}  # fmt: skip


@dataclass(frozen=True)
class _Global:
    """A name that the pickle wants imported; never looked up."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the file."""

    kind: str  # as a numpy type string, or BFLOAT16
    key: str
    count: int

    @property
    def size_bytes(self) -> int:
        """How many bytes of the file it takes."""
        return self.count * itemsize(self.kind)


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refusal(Exception):
    """Why the pickle is not interpreted any further."""


_MARK = object()
_TAKEN = object()


def interpret(stream: io.BytesIO) -> Any:
    """The value that one pickle describes, up to its STOP; the stream is left after it.

    Raises:
        Refusal: an operation or a name that a dictionary of tensors does not need, or a damaged pickle.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of text with odd escapes, in operations that are refused anyway
            steps = pickletools.genops(stream)
            while (step := next(steps))[0].name != "STOP":
                operation = step[0].name
                if operation not in OPERATIONS:
                    raise Refusal(f"its pickle has the operation {operation}, which no dictionary of tensors needs")
                OPERATIONS[operation](stack, memo, step[1])
            return stack.pop()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error, Warning) as error:
        raise Refusal(f"its pickle is damaged: {one_line(error, 80)}") from error


Operation = Callable[[list[Any], dict[int, Any], Any], None]


def _push(stack: list[Any], _: dict[int, Any], argument: Any) -> None:
    stack.append(argument)


def _pushes(make: Callable[[], Any]) -> Operation:
    return lambda stack, _, __: stack.append(make())


def _nothing(_: list[Any], __: dict[int, Any], ___: Any) -> None:
    """PROTO and FRAME only say how the rest is packed."""


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take off everything above the last mark, and the mark."""
    for position in range(len(stack) - 1, -1, -1):
        if stack[position] is _MARK:
            items = stack[position + 1 :]
            del stack[position:]
            return items
    raise ValueError("no mark on the stack")


def _tuple_of(count: int) -> Operation:
    def operation(stack: list[Any], _: dict[int, Any], __: Any) -> None:
        if len(stack) < count:
            raise IndexError("the stack is too short")
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(items)

    return operation


def _tuple(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    stack.append(tuple(_since_mark(stack)))


def _list(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    stack.append(_since_mark(stack))


def _dict(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    stack.append(_filled({}, _since_mark(stack)))


def _append(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    value = stack.pop()
    _top(stack, list).append(value)


def _appends(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    items = _since_mark(stack)
    _top(stack, list).extend(items)


def _set_item(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    value, name = stack.pop(), stack.pop()
    _filled(_top(stack, dict), [name, value])


def _set_items(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    items = _since_mark(stack)
    _filled(_top(stack, dict), items)


def _top(stack: list[Any], kind: type) -> Any:
    if type(stack[-1]) is not kind:
        raise TypeError(f"a {kind.__name__} was wanted, not a {type(stack[-1]).__name__}")
    return stack[-1]


def _filled(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a name without a value")
    for name, value in zip(items[::2], items[1::2], strict=True):
        # Text and numbers only: the hash of nested tuples can take forever.
        if type(name) not in (str, int):
            raise TypeError(f"a name is a {type(name).__name__}")
        if type(name) is int and not 0 <= name < MAX_INTEGER_NAME:
            raise ValueError(f"a name is the number {name}")
        target[name] = value
    return target


def _put(stack: list[Any], memo: dict[int, Any], argument: Any) -> None:
    memo[argument] = stack[-1]


def _memoize(stack: list[Any], memo: dict[int, Any], _: Any) -> None:
    memo[len(memo)] = stack[-1]


def _get(stack: list[Any], memo: dict[int, Any], argument: Any) -> None:
    stack.append(memo[argument])


def _global(stack: list[Any], _: dict[int, Any], argument: Any) -> None:
    stack.append(_known_global(*str(argument).split(" ", 1)))


def _stack_global(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    name, module = stack.pop(), stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError("a name to import is no text")
    stack.append(_known_global(module, name))


def _known_global(module: str, name: str) -> _Global:
    full = f"{module}.{name}"
    if full not in REDUCTIONS and not (module in ("torch", "torch.cuda") and name in STORAGE_TYPES):
        raise Refusal(f"its pickle wants to import {one_line(full, 80)!r}, which no dictionary of tensors needs")
    return _Global(full)


def _persistent(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    """A reference to a storage: ("storage", type, key, location, count), in the old form with a view that is None."""
    value = stack.pop()
    if type(value) is not tuple or not 5 <= len(value) <= 6 or type(value[0]) is not str or value[0] != "storage":
        raise Refusal("its pickle refers to something that is no storage")
    _, kind, key, _, count, *view = value
    if type(kind) is not _Global or kind.name.rpartition(".")[2] not in STORAGE_TYPES:
        raise Refusal("its pickle has a storage of unknown type")
    if type(key) is not str or not are_sizes((count,)) or any(item is not None for item in view):
        raise Refusal("its pickle has a storage that is not plain")
    stack.append(Storage(STORAGE_TYPES[kind.name.rpartition(".")[2]], key, count))


def _reduce(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    """A call: of one of four known names, and only as a description."""
    arguments, called = stack.pop(), stack.pop()
    if type(called) is not _Global or called.name not in REDUCTIONS or type(arguments) is not tuple:
        raise Refusal("its pickle wants to call something that no dictionary of tensors needs")
    stack.append(REDUCTIONS[called.name](arguments))


def _build(stack: list[Any], _: dict[int, Any], __: Any) -> None:
    """Attributes of an object; torch writes versions of modules beside a dictionary of tensors, which say nothing."""
    stack.pop()
    _top(stack, dict)


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Empty, or of pairs, as Python 2 wrote it. The list is used up: out of one list a small file could else make
    thousands of dictionaries.
    """
    if not arguments:
        return {}
    pairs = arguments[0]
    if (
        len(arguments) != 1
        or type(pairs) is not list
        or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs)
    ):
        raise Refusal("its pickle has an ordered dictionary that is not plain")
    found = _filled({}, [item for pair in pairs for item in pair])
    pairs[:] = [_TAKEN]
    return found


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    proper = type(storage) is Storage and are_sizes((offset,)) and is_shape(shape) and are_sizes(strides)
    if not proper or len(shape) != len(strides):
        raise Refusal("its pickle has a tensor without a proper storage, offset, shape and strides")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    if not arguments or type(arguments[0]) is not Tensor:
        raise Refusal("its pickle has a parameter that is no tensor")
    return arguments[0]


REDUCTIONS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}

OPERATIONS: dict[str, Operation] = {
    "PROTO": _nothing, "FRAME": _nothing, "MARK": _pushes(lambda: _MARK),
    "NONE": _pushes(lambda: None), "NEWTRUE": _pushes(lambda: True), "NEWFALSE": _pushes(lambda: False),
    "BININT": _push, "BININT1": _push, "BININT2": _push, "LONG1": _push, "BINFLOAT": _push,
    "BINUNICODE": _push, "SHORT_BINUNICODE": _push, "BINSTRING": _push, "SHORT_BINSTRING": _push,
    "EMPTY_TUPLE": _pushes(tuple), "EMPTY_LIST": _pushes(list), "EMPTY_DICT": _pushes(dict),
    "TUPLE": _tuple, "TUPLE1": _tuple_of(1), "TUPLE2": _tuple_of(2), "TUPLE3": _tuple_of(3),
    "LIST": _list, "DICT": _dict, "APPEND": _append, "APPENDS": _appends,
    "SETITEM": _set_item, "SETITEMS": _set_items,
    "BINPUT": _put, "LONG_BINPUT": _put, "MEMOIZE": _memoize, "BINGET": _get, "LONG_BINGET": _get,
    "GLOBAL": _global, "STACK_GLOBAL": _stack_global, "BINPERSID": _persistent, "REDUCE": _reduce, "BUILD": _build,
}  # fmt: skip


def itemsize(kind: str) -> int:
    """Bytes of one number of this type."""
    return 2 if kind == BFLOAT16 else np.dtype(kind).itemsize


def are_sizes(values: Any) -> bool:
    """Whether it is a short row of whole numbers from 0 on, none of them absurd."""
    return (
        isinstance(values, list | tuple)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def is_shape(values: Any) -> bool:
    """Whether it can be the shape of an array, empty ones included."""
    return are_sizes(values) and math.prod(size for size in values if size) < MAX_NUMBERS
