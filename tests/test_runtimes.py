import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featherweight.artifact import Artifact, read_artifact, write_artifact
from featherweight.errors import RuntimeFailure, SettingError
from featherweight.runtimes import RUNTIMES, supporting
from featherweight.runtimes.openvino import _devices
from featherweight.runtimes.pictures import Answer, Entry, entry_of
from featherweight.runtimes.settings import Ran, Settings, choose, joined
from featherweight.runtimes.smallest import CONVOLUTION, CONVOLUTION_LITERT
from tests.trained import SIZE, Trained

KINDS = ("onnx-float32", "onnx-int8", "litert-float32", "litert-int8")
READS_ONNX = ("onnxruntime", "openvino", "opencv")
QUANTIZED = Path(__file__).parents[2] / "shared" / "data" / "imagenet-models" / "mobilenet_v1_0.25_128_quant.tflite"
NOISE = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def answers(session: Any, pictures: np.ndarray) -> np.ndarray:
    return np.concatenate([session.run(one[None]) for one in pictures])


# ------------------------------------------------------------------------------- what is offered loads and agrees


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUNTIMES)
def test_every_option_agrees_with_the_golden_outputs(trained: Trained, kind: str, name: str) -> None:
    artifact, runtime = trained.artifacts[kind], RUNTIMES[name]
    reason = runtime.supports(artifact)
    if reason is not None:
        assert name in reason
        return
    inputs, wanted = artifact.golden()
    options = runtime.options(artifact)
    for precision, optimization, provider in itertools.product(*asdict(options).values()):
        settings = Settings(1, precision, optimization, provider)
        if (name, optimization) == ("opencv", "classic"):
            # Its depthwise convolution of a map of one pixel, which is what this network ends with, reads beyond it.
            with pytest.raises(RuntimeFailure, match=r"wrongly: their maps are one pixel high or wide at 40×40"):
                runtime.load(artifact, settings)
            continue
        session = runtime.load(artifact, settings)
        assert (session.height, session.width) == (SIZE, SIZE)
        off = np.max(np.abs(answers(session, inputs) - wanted))
        ran = session.ran
        assert off <= (1e-5 if ran.precision == "float32" else 0.05), settings
        assert (ran.optimization, ran.provider) == (optimization, provider)
        assert ran.layout in ("NCHW", "NHWC", "NCHWc")
        if artifact.precision == "float32":
            assert ran.precision == precision
        else:
            assert ran.precision in ("int8", f"int8+{precision}")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("onnx-float32", name) for name in READS_ONNX] + [("litert-int8", "litert"), ("litert-int8", "openvino")],
)
def test_an_answer_stays_when_the_next_picture_is_run(trained: Trained, kind: str, name: str) -> None:
    artifact = trained.artifacts[kind]
    inputs, wanted = artifact.golden()
    session = RUNTIMES[name].load(artifact, Settings(precision="float32"))
    answer = session.run(inputs[:1])
    before = answer.copy()
    others = answers(session, inputs[1:])
    assert answer.dtype == np.float32
    assert np.array_equal(answer, before)
    assert not np.allclose(others[-1], before, atol=0.01)
    assert np.allclose(others, wanted[1:], atol=0.01)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_picture_of_another_size_is_refused(trained: Trained, name: str) -> None:
    artifact = trained.artifacts["litert-float32" if name == "litert" else "onnx-float32"]
    session = RUNTIMES[name].load(artifact, Settings())
    with pytest.raises(RuntimeFailure, match=r"the picture is \(1, 1, 1, 3\); wanted \(1, 40, 40, 3\)"):
        session.run(np.zeros((1, 1, 1, 3), np.uint8))


# ------------------------------------------------------------------------------------------- what was really done


def test_openvino_tells_the_precision_that_it_takes_by_itself(trained: Trained) -> None:
    artifact, runtime = trained.artifacts["onnx-float32"], RUNTIMES["openvino"]
    runtime.prepare(trained.artifacts["onnx-float32"])  # imports it without its telemetry
    import openvino

    core = openvino.Core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names = {"BF16": "bfloat16", "FP16": "float16", "FP32": "float32"}
    hint = core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    own = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[hint]
    offered = runtime.options(artifact).precisions
    assert offered[0] == own
    assert sorted(offered) == sorted(name for capability, name in names.items() if capability in can)
    assert runtime.load(artifact, Settings()).ran.precision == own
    assert runtime.load(artifact, Settings(precision="float32")).ran.precision == "float32"


def test_a_quantized_file_is_float_where_its_integers_are_not_used(trained: Trained) -> None:
    """Below the level `extended`, ONNX Runtime computes a file of Quantize- and DequantizeLinear in float."""
    artifact, runtime = trained.artifacts["onnx-int8"], RUNTIMES["onnxruntime"]
    assert runtime.load(artifact, Settings(optimization="extended")).ran.precision == "int8"
    for level in ("basic", "disabled"):
        ran = runtime.load(artifact, Settings(optimization=level)).ran
        assert (ran.precision, ran.layout, ran.optimization) == ("float32", "NCHW", level)


def test_onnx_runtime_tells_its_arena_its_layout_and_where_operators_ran(trained: Trained) -> None:
    session = RUNTIMES["onnxruntime"].load(trained.artifacts["onnx-float32"], Settings(threads=2))
    answers(session, NOISE)
    ran = session.ran
    assert ran.details["arena"] is True
    assert ran.details["threads"] == 2
    assert list(ran.details["operators_by_provider"]) == ["cpu"]
    assert ran.details["input"] == "float32 1×40×40×3"
    assert session.ran is ran


def test_threads_are_those_asked_for(trained: Trained) -> None:
    import cv2

    artifact = trained.artifacts["onnx-float32"]
    before = cv2.getNumThreads()
    try:
        for threads in (1, 2):
            settings = Settings(threads=threads)
            assert RUNTIMES["openvino"].load(artifact, settings).ran.details["threads"] == threads
            assert RUNTIMES["opencv"].load(artifact, settings).ran.details["threads_of_the_process"] == threads
    finally:
        cv2.setNumThreads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="the threads of a process are listed on Linux")
def test_litert_starts_threads_only_when_asked(trained: Trained) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def started(threads: int) -> int:
        before = count()
        session = RUNTIMES["litert"].load(trained.artifacts["litert-float32"], Settings(threads=threads))
        answers(session, NOISE)
        return count() - before

    assert started(1) == 0
    assert started(3) == 2


def test_kernels_that_litert_was_not_asked_for_are_not_used(trained: Trained) -> None:
    for kernels, parts in (("xnnpack", 1), ("builtin", 0)):
        ran = RUNTIMES["litert"].load(trained.artifacts["litert-float32"], Settings(optimization=kernels)).ran
        assert (ran.optimization, ran.details["parts_by_xnnpack"]) == (kernels, parts)


# ------------------------------------------------------------------------------------------ what is not offered


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_is_not_offered_is_refused_with_what_is(trained: Trained, name: str) -> None:
    artifact = trained.artifacts["litert-float32" if name == "litert" else "onnx-float32"]
    load = RUNTIMES[name].load
    with pytest.raises(SettingError, match=rf"{name} has no provider cuda for this file here; offered: cpu"):
        load(artifact, Settings(provider="cuda"))
    with pytest.raises(SettingError, match=rf"{name} has no optimization most for this file here; offered: "):
        load(artifact, Settings(optimization="most"))
    with pytest.raises(SettingError, match=rf"{name} has no precision float8 for this file here; offered: .*float32"):
        load(artifact, Settings(precision="float8"))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingError, match="0 threads"):
        Settings(threads=0)
    with pytest.raises(SettingError, match=r"input size \(0, 40\)"):
        Settings(input_size=(0, 40))
    assert choose("provider", None, ("cpu", "cuda"), "x") == "cpu"
    assert choose("provider", "cuda", ("cpu", "cuda"), "x") == "cuda"


def test_providers_have_short_names_and_the_processor_is_the_default(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    full = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider", "CoreMLExecutionProvider"]
    full += ["XnnpackExecutionProvider", "NnapiExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: full)
    providers = RUNTIMES["onnxruntime"].options(trained.artifacts["onnx-float32"]).providers
    assert providers == ("cpu", "tensorrt", "cuda", "coreml", "xnnpack", "nnapi", "openvino")  # no service elsewhere


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_no_run_on_the_processor(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build here has no CUDA, and goes on without where it is asked for it."""
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.raises(RuntimeFailure, match=r"could not start cuda for .* would run it on the processor"):
        RUNTIMES["onnxruntime"].load(trained.artifacts["onnx-float32"], Settings(provider="cuda"))


def test_openvino_s_devices_have_short_names_and_the_processor_is_the_default() -> None:
    recorded = SimpleNamespace(available_devices=["GPU.0", "CPU", "NPU"])  # as a machine with all three says
    assert list(_devices(recorded).items()) == [("cpu", "CPU"), ("gpu.0", "GPU.0"), ("npu", "NPU")]


def test_opencv_offers_what_the_build_has(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    artifact, runtime = trained.artifacts["onnx-float32"], RUNTIMES["opencv"]
    has = {cv2.dnn.DNN_BACKEND_OPENCV: [cv2.dnn.DNN_TARGET_CPU], cv2.dnn.DNN_BACKEND_CUDA: [cv2.dnn.DNN_TARGET_CUDA]}
    monkeypatch.setattr(cv2.dnn, "getAvailableTargets", has.__getitem__)
    assert runtime.options(artifact).providers == ("cpu", "cuda")
    with pytest.raises(SettingError, match="no optimization new for this file here; offered: classic"):
        runtime.load(artifact, Settings(provider="cuda", optimization="new"))
    monkeypatch.delattr(cv2.dnn, "ENGINE_NEW")  # as up to OpenCV 4
    assert runtime.options(artifact).optimizations == ("classic",)


def test_opencv_is_not_believed_where_it_answers_otherwise(trained: Trained, tmp_path: Path) -> None:
    artifact = trained.artifacts["onnx-float32"]
    inputs, outputs = artifact.golden()
    data = artifact.model_path.read_bytes()
    other = write_artifact(replace(artifact, path=tmp_path / "other"), data, (inputs, 1 - outputs))
    with pytest.raises(RuntimeFailure, match="opencv answers otherwise than colours did when it was made"):
        RUNTIMES["opencv"].load(other, Settings())


def test_several_runtimes_can_be_named(trained: Trained) -> None:
    assert supporting(trained.artifacts["onnx-float32"], "opencv, onnxruntime,litert") == ["opencv", "onnxruntime"]
    assert supporting(trained.artifacts["onnx-float32"]) == list(READS_ONNX)
    assert supporting(trained.artifacts["litert-int8"]) == ["litert", "openvino"]
    with pytest.raises(RuntimeFailure, match=r"nothing here .*: onnxruntime runs ONNX files.*; opencv reads no int8"):
        supporting(trained.artifacts["litert-int8"], "onnxruntime,opencv")
    with pytest.raises(SettingError, match="unknown runtime 'onnx'; known: onnxruntime, litert, openvino, opencv, all"):
        supporting(trained.artifacts["onnx-float32"], "onnxruntime,onnx")


@pytest.mark.parametrize(
    ("name", "package"),
    [("onnxruntime", "onnxruntime"), ("litert", "ai_edge_litert"), ("openvino", "openvino"), ("opencv", "cv2")],
)
def test_an_absent_library_is_a_reason(
    trained: Trained, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == package else object())
    artifact = trained.artifacts["litert-float32" if name == "litert" else "onnx-float32"]
    assert f"{name} is not installed; pip install" in (RUNTIMES[name].supports(artifact) or "")


# ------------------------------------------------------------------------------------------------- foreign files

Edit = Callable[[Any], None]


def edited(trained: Trained, folder: Path, edit: Edit) -> Artifact:
    """A bare file: the exported one with its graph changed."""
    import onnx

    model = onnx.load(trained.artifacts["onnx-float32"].model_path)
    edit(model.graph)
    onnx.save(model, folder / "foreign.onnx")
    return read_artifact(folder / "foreign.onnx")


def set_shape(*sides: int | str | None) -> Edit:
    """Change the input's sizes: a number, a name, or nothing."""

    def edit(graph: Any) -> None:
        for axis, side in zip(graph.input[0].type.tensor_type.shape.dim, sides, strict=True):
            axis.Clear()
            if isinstance(side, int):
                axis.dim_value = side
            elif side is not None:
                axis.dim_param = side

    return edit


def channels_first(*sides: int | str | None) -> Edit:
    """Let the file take (1, 3, height, width): what comes before its transposition is by element."""

    def edit(graph: Any) -> None:
        turn = next(node for node in graph.node if node.op_type == "Transpose")
        for node in graph.node:
            node.input[:] = [turn.input[0] if name == turn.output[0] else name for name in node.input]
        graph.node.remove(turn)
        del graph.value_info[:]
        set_shape(*sides)(graph)

    return edit


def takes(kind: str) -> Edit:
    """Change the input's type, and cast it back."""

    def edit(graph: Any) -> None:
        import onnx

        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DataType.Value(kind)
        cast = onnx.NodeProto(op_type="Cast", name="cast", input=[graph.input[0].name], output=["as_float"])
        cast.attribute.add(name="to", type=onnx.AttributeProto.INT, i=onnx.TensorProto.FLOAT)
        for node in graph.node:
            node.input[:] = ["as_float" if name == graph.input[0].name else name for name in node.input]
        graph.node.insert(0, cast)

    return edit


OPEN = {
    "named": set_shape("batch", "height", "width", 3),
    "unnamed": set_shape(None, None, None, 3),
    "channels first": channels_first("N", 3, "H", "W"),
}


@pytest.mark.parametrize("name", READS_ONNX)
@pytest.mark.parametrize("which", OPEN)
def test_open_sizes_are_fixed_by_the_input_size(trained: Trained, tmp_path: Path, name: str, which: str) -> None:
    wanted = answers(RUNTIMES["onnxruntime"].load(trained.artifacts["onnx-float32"], Settings()), NOISE)
    artifact, runtime = edited(trained, tmp_path, OPEN[which]), RUNTIMES[name]
    with pytest.raises(RuntimeFailure, match=r"foreign\.onnx takes .* leaves its size open; give it with --input"):
        runtime.load(artifact, Settings())
    session = runtime.load(artifact, Settings(precision="float32", input_size=(SIZE, SIZE)))
    assert (session.height, session.width) == (SIZE, SIZE)
    assert np.allclose(answers(session, NOISE), wanted, atol=1e-5)
    shape = "1×3×40×40" if which == "channels first" else "1×40×40×3"
    assert session.ran.details["input"] == f"float32 {shape}"


@pytest.mark.parametrize("name", READS_ONNX)
@pytest.mark.parametrize("kind", ["UINT8", "INT8", "FLOAT16"])
def test_a_picture_is_given_as_the_type_that_the_file_takes(
    trained: Trained, tmp_path: Path, name: str, kind: str
) -> None:
    runtime, own = RUNTIMES[name], RUNTIMES["onnxruntime"].load(trained.artifacts["onnx-float32"], Settings())
    session = runtime.load(edited(trained, tmp_path, takes(kind)), Settings(precision="float32"))
    pictures = NOISE.clip(128) if kind == "INT8" else NOISE
    wanted = answers(own, pictures - 128 if kind == "INT8" else pictures)
    assert np.allclose(answers(session, pictures), wanted, atol=1e-5)
    assert session.ran.details["input"].startswith(kind.lower())


@pytest.mark.parametrize("name", READS_ONNX)
def test_an_input_that_is_no_picture_is_refused(trained: Trained, tmp_path: Path, name: str) -> None:
    def refused(edit: Edit, match: str) -> None:
        with pytest.raises(RuntimeFailure, match=match):
            RUNTIMES[name].load(edited(trained, tmp_path, edit), Settings())

    def with_another(graph: Any) -> None:
        graph.input.append(graph.input[0])
        graph.input[1].name = "another"

    # OpenVINO holds the sizes against the network before they can be looked at.
    refused(
        set_shape(1, SIZE, SIZE, 1), r"foreign\.onnx(: .*channel| takes float32 \[1, 40, 40, 1\]; wanted one picture)"
    )
    refused(
        set_shape(8, SIZE, SIZE, 3), r"foreign\.onnx(: .*shape| takes float32 \[8, 40, 40, 3\]; wanted one picture)"
    )
    refused(
        lambda graph: graph.input[0].type.tensor_type.ClearField("shape"), r"foreign\.onnx( takes| does not|: .*shape)"
    )
    refused(with_another, r"foreign\.onnx takes .*another.*; wanted one picture")
    refused(takes("DOUBLE"), r"(?i)foreign\.onnx takes .*(double|float64).*; wanted one picture")
    with pytest.raises(SettingError, match="its size is fixed and cannot become 8×40"):
        RUNTIMES[name].load(trained.artifacts["onnx-float32"], Settings(input_size=(8, SIZE)))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_damaged_file_is_one_line(trained: Trained, tmp_path: Path, name: str) -> None:
    suffix = ".tflite" if name == "litert" else ".onnx"
    artifact = trained.artifacts["litert-float32" if name == "litert" else "onnx-float32"]
    torn = tmp_path / f"torn{suffix}"
    torn.write_bytes(artifact.model_path.read_bytes()[:3000])
    with pytest.raises(RuntimeFailure, match=rf"{name} cannot load .*torn\{suffix}: .") as caught:
        RUNTIMES[name].load(read_artifact(torn), Settings(input_size=(SIZE, SIZE)))
    assert "\n" not in str(caught.value)


def test_a_file_that_loads_and_cannot_be_run_is_one_line(trained: Trained, tmp_path: Path) -> None:
    """Within the network is a shape for 40 pixels; without names for the sizes that comes out in the run."""
    artifact = edited(trained, tmp_path, OPEN["unnamed"])
    session = RUNTIMES["onnxruntime"].load(artifact, Settings(input_size=(96, 96)))
    with pytest.raises(RuntimeFailure, match=r"onnxruntime cannot run .*foreign\.onnx: ."):
        session.run(np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(RuntimeFailure, match=r"opencv's new engine cannot run .*foreign\.onnx: ."):
        RUNTIMES["opencv"].load(artifact, Settings(input_size=(96, 96)))
    with pytest.raises(RuntimeFailure, match=r"openvino cannot load .*foreign\.onnx: ."):
        RUNTIMES["openvino"].load(artifact, Settings(input_size=(96, 96)))


class Broken:
    """A library's object that fails in a run."""

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        raise ValueError("broken\nin two lines")

    def infer(self, share_outputs: bool) -> None:
        raise RuntimeError("Exception from src/infer.cpp:223:\nbroken")


@pytest.mark.parametrize(("name", "part"), [("litert", "_interpreter"), ("openvino", "_request")])
def test_a_failing_run_is_one_line(trained: Trained, name: str, part: str) -> None:
    session = RUNTIMES[name].load(trained.artifacts["litert-float32"], Settings())
    vars(session)[part] = Broken()
    with pytest.raises(RuntimeFailure, match=rf"{name} cannot run .*model\.tflite: broken( in two lines)?$"):
        session.run(NOISE[:1])


# ---------------------------------------------------------------------------------------- foreign LiteRT files

KERNELS = np.random.default_rng(1).normal(0, 0.01, (1, 1, 3, 512)).astype(np.float32)


def litert_file(folder: Path, shape: tuple[int | None, ...] = (1, 8, 8, 3), inputs: int = 1, how: str = "") -> Artifact:
    """Softmax of the mean of a 1×1 convolution, 512 numbers, by the real converter."""
    import tensorflow as tf

    from featherweight.progress import quiet

    def network(*images: Any) -> Any:
        return tf.nn.softmax(tf.reduce_mean(tf.nn.conv2d(images[0], KERNELS, 1, "SAME"), axis=(1, 2)))

    with quiet():
        signature = [tf.TensorSpec(shape, tf.float32)] * inputs
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [tf.function(network).get_concrete_function(*signature)]
        )
        if how:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if how == "float16":
            converter.target_spec.supported_types = [tf.float16]
        (folder / "foreign.tflite").write_bytes(converter.convert())
    return read_artifact(folder / "foreign.tflite")


def worked_out(picture: np.ndarray) -> np.ndarray:
    logits = picture.mean(axis=(1, 2)) @ KERNELS[0, 0]
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_open_sizes_of_a_litert_file(tmp_path: Path) -> None:
    artifact = litert_file(tmp_path, (None, None, None, 3))
    picture = NOISE[:1, :12, :16]
    for name in ("litert", "openvino"):
        with pytest.raises(RuntimeFailure, match=r"takes float32 \[\?, \?, \?, 3\] and leaves its size open"):
            RUNTIMES[name].load(artifact, Settings())
        session = RUNTIMES[name].load(artifact, Settings(precision="float32", input_size=(12, 16)))
        assert (session.height, session.width) == (12, 16)
        assert np.allclose(session.run(picture), worked_out(picture), atol=1e-5)


def test_opencv_reads_a_bare_litert_file_of_a_given_size(tmp_path: Path) -> None:
    artifact, picture = litert_file(tmp_path), NOISE[:1, :8, :8]
    with pytest.raises(RuntimeFailure, match=r"opencv does not tell the input size of .*; give it with --input"):
        RUNTIMES["opencv"].load(artifact, Settings())
    session = RUNTIMES["opencv"].load(artifact, Settings(input_size=(8, 8)))
    assert np.allclose(session.run(picture), worked_out(picture), atol=1e-5)
    assert session.ran == Ran("float32", "cpu", "classic", "NCHW", session.ran.details)


@pytest.mark.parametrize(("how", "arithmetic"), [("", "float32"), ("float16", "float32"), ("weights", "int8+float32")])
def test_litert_tells_small_weights_from_small_arithmetic(tmp_path: Path, how: str, arithmetic: str) -> None:
    artifact, picture = litert_file(tmp_path, how=how), NOISE[:1, :8, :8]
    session = RUNTIMES["litert"].load(artifact, Settings())
    assert session.ran.precision == arithmetic
    assert np.allclose(session.run(picture), worked_out(picture), atol=1e-3)


def test_a_litert_file_of_two_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=r"foreign\.tflite takes .*, .*; wanted one picture"):
        RUNTIMES["litert"].load(litert_file(tmp_path, inputs=2), Settings())


def test_a_foreign_quantized_file_takes_bytes_and_gives_probabilities() -> None:
    if not QUANTIZED.exists():
        pytest.skip(f"no {QUANTIZED.name} in the shared data")
    artifact = read_artifact(QUANTIZED)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    found = {name: answers(RUNTIMES[name].load(artifact, Settings(precision="float32")), pictures)
             for name in ("litert", "openvino")}  # fmt: skip
    assert np.all((found["litert"] >= 0) & (found["litert"] < 1))
    assert np.all(found["litert"].max(axis=1) > 0.05)  # of a thousand classes: some is meant
    assert np.max(np.abs(found["litert"] - found["openvino"])) <= 3 / 256  # codes of the output
    with pytest.raises(RuntimeFailure, match="opencv cannot load"):
        RUNTIMES["opencv"].load(artifact, Settings(input_size=(128, 128)))


# ------------------------------------------------------------------------------------------------ pictures, names


def test_bytes_in_every_type_and_order_of_axes() -> None:
    picture = NOISE[:1]
    for kind in ("float32", "float16", "uint8", "int8"):
        for first in (False, True):
            found = Entry(SIZE, SIZE, first, kind).take(picture)
            turned = found.transpose(0, 2, 3, 1) if first else found
            assert found.dtype == kind
            assert np.array_equal(turned.astype(int) + (128 if kind == "int8" else 0), picture)
    assert Entry(SIZE, SIZE, False, "uint8").take(picture) is picture


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
def test_codes_stand_for_code_less_zero_point_times_scale(kind: str) -> None:
    limits = np.iinfo(kind)
    codes = np.unique(np.linspace(limits.min, limits.max, 200).astype(kind))
    found = Answer(kind, 0.5, 3).real(codes)
    assert found.dtype == np.float32
    assert np.array_equal(found, (codes.astype(float) - 3) * 0.5)
    assert np.array_equal(Answer(kind).real(codes), codes)


def test_which_axis_has_the_colours() -> None:
    path = Path("net")
    assert str(entry_of(path, (1, 3, 8, 9), "float32", None)) == "float32 1×3×8×9"
    assert str(entry_of(path, (1, 8, 9, 3), "uint8", None)) == "uint8 1×8×9×3"
    assert str(entry_of(path, (None, 3, 3, 3), "uint8", None)) == "uint8 1×3×3×3"
    assert str(entry_of(path, ("n", 8, "w", 3), "int8", (8, 5))) == "int8 1×8×5×3"
    for shape in ((8, 9, 3), (1, None, None, None), (1, 8, 9, 1), (2, 8, 8, 3)):
        with pytest.raises(RuntimeFailure, match=r"net takes float32 .*; wanted one picture"):
            entry_of(path, shape, "float32", (8, 8))


def test_a_mixture_of_numbers_has_one_name() -> None:
    assert joined(["f32", "u8", "i8", "bf16"]) == "int8+bfloat16+float32"
    assert joined(["float", "uint8"]) == "int8+float32"
    assert joined(["float16"]) == "float16"
    assert joined(["complex64", "float"]) == "float32+complex64"
    assert joined([]) is None


# ---------------------------------------------------------------------------------------------- the empty runtime


def test_the_smallest_network_is_one_convolution() -> None:
    import onnx

    model = onnx.load_from_string(CONVOLUTION)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[[[1.0]]]]


def test_so_is_the_smallest_litert_network() -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    network = Interpreter(model_content=CONVOLUTION_LITERT, experimental_op_resolver_type=plain)
    network.allocate_tensors()
    network.set_tensor(network.get_input_details()[0]["index"], np.full((1, 1, 1, 1), 7, np.float32))
    network.invoke()
    assert [operator["op_name"] for operator in network._get_ops_details()] == ["CONV_2D"]
    assert network.get_tensor(network.get_output_details()[0]["index"]).tolist() == [[[[7.0]]]]


PREPARED = """
import sys
from featherweight.artifact import read_artifact
from featherweight.runtimes import RUNTIMES
RUNTIMES[sys.argv[1]].prepare(read_artifact(sys.argv[2]))
print("onnx" in sys.modules, "openvino_intel_cpu_plugin" in open("/proc/self/maps").read())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped")
@pytest.mark.parametrize(
    ("name", "bare", "found"),
    [("openvino", False, "False True"), ("opencv", True, "True False"), ("opencv", False, "False False")],
)
def test_what_every_file_would_bring_is_there_before_one_is_loaded(
    trained: Trained, name: str, bare: bool, found: str
) -> None:
    artifact = trained.artifacts["onnx-float32"]
    path = artifact.model_path if bare else artifact.path
    command = [sys.executable, "-c", PREPARED, name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (found, "")


# ------------------------------------------------------------------------------------------------------ telemetry


def test_no_runtime_writes_into_the_home_folder(trained: Trained, tmp_path: Path) -> None:
    """ONNX Runtime keeps a device id there, and OpenVINO reports each import of it, unless they are kept from it."""
    paths = [str(trained.artifacts[kind].path) for kind in ("onnx-float32", "litert-float32")]
    code = (
        "import sys\n"
        "from featherweight.artifact import read_artifact\n"
        "from featherweight.runtimes import RUNTIMES, supporting\n"
        "from featherweight.runtimes.settings import Settings\n"
        f"for path in {paths!r}:\n"
        "    artifact = read_artifact(path)\n"
        "    for name in supporting(artifact, 'onnxruntime,litert,openvino'):\n"
        "        RUNTIMES[name].prepare(artifact)\n"
        "        RUNTIMES[name].load(artifact, Settings()).ran\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
