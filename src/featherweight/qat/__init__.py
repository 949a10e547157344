"""Quantization-aware training for convolutions in Keras 3: a model trains with the rounding of its int8 file in it.

    aware, step = train_aware(model, dataset)                    # fake-quantized, trained on
    aware, step = imitate(model, pictures)                       # the same without labels, for any task
    export_qat(aware, "out", "onnx", about, pictures)            # an int8 file that answers as `aware` does

    aware, step = fake_quantize(model, pictures)                 # or by hand: any `fit`, any loss, any optimizer
    plain, grids = finish(aware)                                 # ordinary layers with rounded weights, and the grids

The parts:

    grid        which values int8 can hold
    layers      the two Keras layers that round; gradients go straight through
    spelling    a model in the operations that files are made of
    places      where a model is rounded
    steps       fake_quantize, finish
    fit         train_aware, imitate
    files       export_qat
    onnx_file   integer weights in an ONNX graph

Method: Jacob et al. 2018, arXiv 1712.05877. A `.keras` file of a fake-quantized model loads once
`featherweight.qat.layers` is imported.
"""

from featherweight.qat.files import export_qat
from featherweight.qat.fit import GENTLE, PATIENT, imitate, train_aware
from featherweight.qat.grid import Grid
from featherweight.qat.steps import PlaceSettings, RangeSettings, fake_quantize, finish, settled

__all__ = [
    "GENTLE",
    "PATIENT",
    "Grid",
    "PlaceSettings",
    "RangeSettings",
    "export_qat",
    "fake_quantize",
    "finish",
    "imitate",
    "settled",
    "train_aware",
]
