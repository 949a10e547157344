"""The protos that an ONNX file is made of: copies, and a node's attributes as plain values.

Imports nothing of the package; onnx where it is used.
"""

from typing import Any


def copied(message: Any) -> Any:
    """A copy of a model or node."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name."""
    import onnx

    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
