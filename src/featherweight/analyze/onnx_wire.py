"""An ONNX file's bytes, looked over before protobuf builds objects of them.

An empty operator takes two bytes in a file and over a hundred in memory, so that a small file can fill a machine. Here
the file's messages are walked by their lengths alone, and counted; payloads are passed over.

Encoding: https://protobuf.dev/programming-guides/encoding/; fields: onnx.proto. Imports nothing of the package.
"""

# Message → number of a field that holds messages → which. What is not named is counted as one field and passed over.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 14: "leaf", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 14: "leaf", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 14: "type", 15: "type", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "value": {2: "type"},
    "type": {1: "typed", 4: "type", 5: "type", 8: "typed", 9: "type"},
    "typed": {1: "type", 2: "shape"},
    "shape": {1: "leaf"},
    "leaf": {},
}  # fmt: skip
LENGTH = 2  # protobuf's kind of encoding: a length, and so many bytes
FIXED = {1: 8, 5: 4}  # kind of encoding → bytes


class WireError(ValueError):
    """The bytes are no protobuf."""


class TooMuch(ValueError):
    """More operators or fields than are read."""


def count_nodes(data: bytes, max_nodes: int, max_fields: int) -> int:
    """How many operators there are, in all graphs and functions.

    Raises:
        TooMuch: more than `max_nodes`, or more than `max_fields` fields in all.
        WireError: no protobuf.
    """
    nodes = fields = 0
    left = [("model", 0, len(data))]
    while left:
        message, place, end = left.pop()
        inner = MESSAGES[message]
        while place < end:
            fields += 1
            if fields > max_fields:
                raise TooMuch(f"over {max_fields:,} fields")
            tag, place = _number(data, place, end)
            kind = tag & 7
            if kind == LENGTH:
                length, place = _number(data, place, end)
                if tag >> 3 in inner:
                    left.append((inner[tag >> 3], place, place + length))
                    nodes += inner[tag >> 3] == "node"
                    if nodes > max_nodes:
                        raise TooMuch(f"over {max_nodes:,} operators")
                place += length
            elif kind == 0:
                _, place = _number(data, place, end)
            else:
                place += FIXED.get(kind, end)  # groups are in no ONNX file
            if place > end:
                raise WireError("a field goes beyond its message")
    return nodes


def _number(data: bytes, place: int, end: int) -> tuple[int, int]:
    """(a number of at most ten bytes, the place behind it)."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise WireError("a number does not end")
