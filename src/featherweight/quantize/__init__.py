"""Files of float32 → files of int8 or float16: for ONNX and LiteRT, from `Artifact` to `Artifact`.

- `quantize` makes one as `QuantizeSettings` say, and keeps it only if it still answers as the float file.
- `sensitivity` tells what each layer costs when only it is int8.
- `quantize_within` leaves layers in float until no more than half a point is lost.

- With `QuantizeSettings.smooth` and without `inner_codes` an ONNX file with leaky ReLUs loses a third as much.

What it brings, on the device: static int8 is fast wherever a runtime has kernels for it, and four times smaller.
int8-dynamic is four times smaller and, for convolutions, slower. float16 is half the size, and faster only on graphics
processors and the like.

In scope: the file. Not aware of: Keras. Imports artifact, data, errors, progress, runtimes and tasks; onnx,
onnxruntime, ai_edge_litert and tensorflow where used.
"""

from featherweight.quantize.agreement import (
    GOLDEN_IMAGES,
    INT8_TOLERANCE,
    check_agreement,
    export_golden,
    output_error,
)
from featherweight.quantize.make import quantize, quantized_name
from featherweight.quantize.sensitivity import LayerCost, Sensitivity, sensitivity
from featherweight.quantize.settings import (
    CALIBRATION_IMAGES,
    CALIBRATIONS,
    PRECISIONS,
    QuantizeSettings,
    calibration_pictures,
    choose_calibration,
    chosen_items,
)
from featherweight.quantize.within import accuracy_on, quantize_within

__all__ = [
    "CALIBRATIONS",
    "CALIBRATION_IMAGES",
    "GOLDEN_IMAGES",
    "INT8_TOLERANCE",
    "PRECISIONS",
    "LayerCost",
    "QuantizeSettings",
    "Sensitivity",
    "accuracy_on",
    "calibration_pictures",
    "check_agreement",
    "choose_calibration",
    "chosen_items",
    "export_golden",
    "output_error",
    "quantize",
    "quantize_within",
    "quantized_name",
    "sensitivity",
]
