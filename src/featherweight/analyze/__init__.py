"""Where the cost of a model goes: parameters, MACs, FLOPs, memory and receptive field, operator by operator.

    import featherweight as fw
    analysis = fw.analyze("model.onnx")           # or .tflite, .keras, .h5, an artifact folder, a keras.Model
    analysis.macs, analysis.parameters            # of the whole model
    for row in analysis.rows:                     # of each operator
        print(row.name, row.kind, row.macs)

Readers make a `Graph` of a model; one table of rules (`operators.RULES`) costs it. Neither changes the model. Counts
do not rank light models by speed: measure that.

Imports artifact, errors, modelfile and this folder; keras, models and onnx inside the readers.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.analyze.costs import Analysis, analyze_graph, count
from featherweight.analyze.graph import Graph
from featherweight.errors import ModelFileError, SettingError

if TYPE_CHECKING:
    import keras

__all__ = ["Analysis", "analyze", "count", "read_graph"]


WANTED_HERE = "wanted an .onnx, .tflite, .keras or .h5 file with a network, or a network of the zoo by its name"


def analyze(model: "str | Path | keras.Model", input_size: int | tuple[int, int] | None = None) -> Analysis:
    """What a model costs and where.

    Args:
        model: an artifact folder, an .onnx, .tflite, .keras or .h5 file, the name of a network of the zoo (as
            published, for 1000 classes, a segmenter for two), or a Functional or Sequential `keras.Model`.
        input_size: pixels of height and width, for a model that leaves them open; for a network of the zoo, the size
            it is built for.

    Raises:
        ArtifactError, ModelFileError: the file is no model, damaged, or beyond what is read.
        SettingError: an unknown name, or an input size that is wanted or does not fit.
    """
    return analyze_graph(read_graph(model, input_size))


def read_graph(model: "str | Path | keras.Model", input_size: int | tuple[int, int] | None = None) -> Graph:
    """The model as operators over tensors; arguments and errors as in `analyze`."""
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    if size is not None and min(size) < 1:
        raise SettingError(f"input size {size[0]}×{size[1]}; wanted pixels")
    if not isinstance(model, str | Path):
        from featherweight.analyze.keras_reader import read_keras

        return read_keras(model, size)
    path = Path(model)
    if not path.exists() and path.name == str(model):
        return _zoo_graph(str(model), size)
    return _file_graph(path, size)


def _zoo_graph(name: str, size: tuple[int, int] | None) -> Graph:
    """A network of the zoo as it was published, or a segmenter for two classes."""
    from featherweight.models.nets import NETS
    from featherweight.models.segmenter_nets import SEGMENTERS

    if name not in NETS and name not in SEGMENTERS:  # a slip is answered before Keras is imported
        known = ", ".join((*NETS, *SEGMENTERS))
        raise SettingError(f"{name} is no file and no network of the zoo; wanted a model file or one of: {known}")
    if size is not None and size[0] != size[1]:
        raise SettingError(f"input size {size[0]}×{size[1]}; the zoo's networks take squares")
    _start_keras()
    from featherweight.analyze.keras_reader import read_keras
    from featherweight.models.segmenters import segmenter
    from featherweight.models.zoo import Shape, reference

    if name in SEGMENTERS:
        model = segmenter(Shape(name, 1.0, SEGMENTERS[name].size if size is None else size[0]), 2)
    else:
        model = reference(NETS[name], 1.0, None if size is None else size[0])
    return replace(read_keras(model), name=name)


def _start_keras() -> None:
    """Import Keras without what its backend says at its start."""
    from featherweight.progress import quiet

    with quiet():
        import keras  # noqa: F401


def _file_graph(path: Path, size: tuple[int, int] | None) -> Graph:
    from featherweight.artifact import sha256_of
    from featherweight.modelfile import WANTED, Kind, identify

    if path.is_dir():
        return _artifact_graph(path, size)
    try:
        kind = identify(path)
    except ModelFileError as error:
        raise ModelFileError(str(error).replace(WANTED, WANTED_HERE)) from error
    if kind is Kind.ONNX:
        from featherweight.analyze.onnx_reader import read_onnx

        graph = read_onnx(path, size)
    elif kind is Kind.TFLITE:
        from featherweight.analyze.litert_reader import read_litert

        graph = read_litert(path)
        _check_litert_size(graph, path, size)
    elif kind in (Kind.KERAS, Kind.HDF5):
        _start_keras()
        from featherweight.analyze.keras_reader import read_keras
        from featherweight.models.load import load_model

        graph = read_keras(load_model(path), size)
    else:
        raise SettingError(f"{path} holds weights without a network; {WANTED_HERE}")
    return replace(graph, path=str(path), file_bytes=path.stat().st_size, sha256=sha256_of(path))


def _check_litert_size(graph: Graph, path: Path, size: tuple[int, int] | None) -> None:
    """The sizes of these files are fixed."""
    for name in graph.inputs if size is not None else ():
        shape = graph.tensors[name].shape
        if shape[1:3] != size:
            raise SettingError(f"{path} takes {'×'.join(map(str, shape))}, which is fixed; leave --input-size out")


def _artifact_graph(path: Path, size: tuple[int, int] | None) -> Graph:
    """An artifact's file, under the artifact's name."""
    from featherweight.artifact import read_artifact

    artifact = read_artifact(path)
    return replace(_file_graph(artifact.model_path, size), name=artifact.name)
