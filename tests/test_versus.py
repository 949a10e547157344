"""A against B: pairs, verdicts, and what a file's record says of the file that it was made from."""

import math
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight import versus as versus_verb
from featherweight.analyze.costs import Row
from featherweight.artifact import Artifact, Step, read_artifact
from featherweight.device import available_cores
from featherweight.errors import MeasureError, RuntimeFailure, SettingError
from featherweight.measure import Case
from featherweight.measure import findings as findings_module
from featherweight.measure import pairs as pairs_module
from featherweight.measure import versus as versus_module
from featherweight.measure.findings import ALLOWED_LOSS, ancestor_of, causes, findings_of_all, two_sides
from featherweight.measure.one import Pictures, pictures_of
from featherweight.measure.pairs import (
    PairProtocol,
    _alternate,
    _rounds,
    best_cores,
    log_ratios,
    one_pair,
    shared_cores,
)
from featherweight.measure.versus import Accuracies, Against, hold, scored_of
from featherweight.runtimes.settings import Settings
from featherweight.stats import Difference, McNemar, accuracy_difference, mcnemar, verdict
from tests.make import make_artifact, make_record
from tests.trained import Trained

FEW = PairProtocol(start=6, cap=6, warmup_seconds=0.01, side_seconds=0.05, rounds=(2, 5))


def case(trained: Trained, kind: str) -> Case:
    artifact = trained.artifacts[kind]
    return Case(artifact, "onnxruntime" if artifact.format == "onnx" else "litert", Settings())


def as_slow_as(monkeypatch: pytest.MonkeyPatch, ratio: float, noise: float = 0.005) -> None:
    """Pairs that say: A takes `ratio` times the time of B."""
    rng = random.Random(0)
    said = lambda *_: math.log(ratio) + rng.uniform(-noise, noise)  # noqa: E731
    monkeypatch.setattr(pairs_module, "one_pair", said)


# ----------------------------------------------------------------------------------------------------------- pairs


@pytest.fixture
def kept_workers(monkeypatch: pytest.MonkeyPatch) -> list[pairs_module.Worker]:
    """The processes of the pairs that the test takes."""
    made: list[pairs_module.Worker] = []

    class Kept(pairs_module.Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(pairs_module, "Worker", Kept)
    return made


def test_a_pair_is_two_fresh_processes_and_ends_them(trained: Trained, kept_workers: list[pairs_module.Worker]) -> None:
    ratio = one_pair(case(trained, "onnx-float32"), case(trained, "litert-float32"), (), FEW, random.Random(0))
    assert -3 < ratio < 3
    assert ratio != 0
    assert len({worker.pid for worker in kept_workers}) == 2
    assert all(worker._process.poll() is not None for worker in kept_workers)


def test_a_pair_ends_both_where_one_dies(
    trained: Trained, tmp_path: Path, kept_workers: list[pairs_module.Worker]
) -> None:
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(b"\x08\x0a" + bytes(200))
    broken = Case(read_artifact(torn), "onnxruntime", Settings())
    with pytest.raises(RuntimeFailure, match="torn"):
        one_pair(case(trained, "onnx-float32"), broken, (), FEW, random.Random(0))
    assert len(kept_workers) == 2
    assert all(worker._process.poll() is not None for worker in kept_workers)


@pytest.mark.parametrize(("noise", "pairs"), [(0.001, 20), (0.5, 40)])
def test_pairs_are_added_by_the_width_of_the_interval_alone(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, noise: float, pairs: int
) -> None:
    as_slow_as(monkeypatch, 1.5, noise)
    one, told = case(trained, "onnx-float32"), []
    found = log_ratios(one, one, (), PairProtocol(), random.Random(0), told.append)
    assert len(found) == pairs
    assert told == list(range(1, pairs + 1))


def test_slow_models_take_fewer_rounds() -> None:
    protocol = PairProtocol()
    assert _rounds(0.0001, protocol) == round(0.15 / 0.0101)
    assert _rounds(0.005, protocol) == round(0.15 / 0.020)
    assert _rounds(1.0, protocol) == 5


class Recorded:
    """A worker whose runs took what is written down; it writes down who was asked."""

    def __init__(self, name: str, blocks: Sequence[Sequence[int]], asked: list[str]):
        self.name, self.blocks, self.asked = name, iter(blocks), asked

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def ask(self, command: str, *_: Any, **__: Any) -> dict[str, Any]:
        if command == "block":
            self.asked.append(self.name)
            return {"ns": list(next(self.blocks))}
        return {"ns": [2_000_000] * 10}


def ratio_of(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]], seed: int) -> float:
    asked: list[str] = []
    workers: Any = {0: Recorded("a", a, asked), 1: Recorded("b", b, asked)}
    return _alternate(workers, len(a), PairProtocol(), random.Random(seed))


BLOCKS = st.lists(st.integers(1, 10**9), min_size=1, max_size=6)


@given(st.lists(st.tuples(BLOCKS, BLOCKS), min_size=1, max_size=20), st.integers(0, 3))
def test_swapping_the_sides_turns_the_sign_and_no_more(rounds: list[tuple[list[int], list[int]]], seed: int) -> None:
    a, b = [one for one, _ in rounds], [other for _, other in rounds]
    assert ratio_of(a, b, seed) == -ratio_of(b, a, seed + 1)
    assert ratio_of(a, a, seed) == 0


def test_of_an_even_number_both_middle_ones_count() -> None:
    # Two rounds, log-ratios 0 and ln 4: the median is ln 2. Two runs a block, 1 and 3: their median is 2.
    assert ratio_of([[8], [8]], [[8], [2]], 0) == pytest.approx(math.log(2))
    assert ratio_of([[1, 3]], [[4, 4]], 0) == pytest.approx(-math.log(2))


def test_the_order_is_random_of_starting_and_of_blocks(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    asked: list[str] = []

    def recorded(artifact: Artifact, *_: Any) -> Recorded:
        started.append(artifact.precision or "")
        return Recorded(artifact.precision or "", [[1, 1, 1]] * 20, asked)

    monkeypatch.setattr(pairs_module, "Worker", recorded)
    rng = random.Random(0)
    for _ in range(40):
        one_pair(case(trained, "onnx-float32"), case(trained, "onnx-int8"), (), PairProtocol(), rng)
    for order in (started, asked):
        firsts, seconds = order[::2], order[1::2]
        assert all({one, other} == {"float32", "int8"} for one, other in zip(firsts, seconds, strict=True))
        assert 0.2 < firsts.count("float32") / len(firsts) < 0.8
    pairs = [asked[at : at + 2] for at in range(0, len(asked), 2)]
    assert len({tuple(pair) for pair in pairs[:12]}) == 2  # within the first pair, of 12 rounds, too


def test_few_pairs_are_taken_as_asked(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    as_slow_as(monkeypatch, 1.5, 0.5)
    one = case(trained, "onnx-float32")
    for cap in (6, 10, 44):
        assert len(log_ratios(one, one, (), PairProtocol(cap=cap), random.Random(0))) == cap


def fake_cores(root: Path, **files: Sequence[object]) -> Path:
    """A /sys with files of the cores; a name's `__` is a slash."""
    for name, values in files.items():
        for core, value in enumerate(values):
            path = root / f"sys/devices/system/cpu/cpu{core}" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
    return root


def test_the_cores_of_an_intel_hybrid(tmp_path: Path) -> None:
    # Two fast cores of two threads each (0-1, 2-3), four slow ones behind.
    root = fake_cores(
        tmp_path,
        topology__thread_siblings_list=["0-1", "0-1", "2-3", "2-3", 4, 5, 6, 7],
        cpufreq__cpuinfo_max_freq=[5_000_000] * 4 + [3_800_000] * 4,
    )
    assert [best_cores(range(8), count, root) for count in (1, 2, 3)] == [(3,), (1, 3), (1, 3, 7)]
    assert best_cores(range(8), 7, root) == (1, 2, 3, 4, 5, 6, 7)
    assert best_cores((0, 1, 4, 5), 1, root) == (1,)  # what a container leaves


def test_the_cores_of_a_machine_with_two_threads_a_core(tmp_path: Path) -> None:
    root = fake_cores(tmp_path, topology__thread_siblings_list=["0,4", "1,5", "2,6", "3,7"] * 2)
    assert [best_cores(range(8), count, root) for count in (1, 2, 4)] == [(7,), (6, 7), (4, 5, 6, 7)]
    assert best_cores(range(8), 5, root) == (3, 4, 5, 6, 7)
    assert best_cores((2, 3, 6, 7), 2, root) == (6, 7)


def test_the_cores_of_a_board_with_big_ones_first(tmp_path: Path) -> None:
    root = fake_cores(tmp_path, cpu_capacity=[1024, 1024, 446, 446])
    assert best_cores(range(4), 1, root) == (1,)
    assert best_cores(range(4), 3, root) == (0, 1, 3)
    assert best_cores(range(4), 2, tmp_path / "nothing") == (2, 3)


def test_both_sides_share_their_cores() -> None:
    cores = available_cores()
    assert shared_cores(cores) is None
    if sys.platform != "linux":
        assert shared_cores(1) is None
    elif cores > 1:
        chosen = shared_cores(1)
        assert chosen is not None
        assert len(chosen) == 1
        assert set(chosen) <= os.sched_getaffinity(0)


def test_odd_protocols_are_refused() -> None:
    for wrong in ({"start": 5}, {"cap": 5}, {"cap": -1}):
        with pytest.raises(SettingError, match="pairs; wanted at least 6 for an interval"):
            PairProtocol(**wrong)
    with pytest.raises(SettingError, match="0 pairs more at a time; wanted at least 1"):
        PairProtocol(step=0)
    with pytest.raises(SettingError, match="margin 0"):
        PairProtocol(margin=0)


# ---------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("ratio", "word"), [(0.8, "faster"), (1.25, "slower"), (1.0, "no difference shown"), (1.01, "no difference shown")]
)
def test_files_are_held_against_the_first(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, ratio: float, word: str
) -> None:
    as_slow_as(monkeypatch, ratio)
    files = [trained.artifacts["onnx-float32"].path, trained.artifacts["onnx-int8"].path]
    (against,) = versus_verb(files, trained.dataset, "onnxruntime")
    assert against.speed.word == word
    assert against.accuracy is not None
    assert against.accuracy.difference.n == len(trained.dataset.part("test"))
    text = str(against)
    assert word in text
    assert "accuracy" in text
    values = against.as_dict()
    assert values["speed"]["said"] == str(against.speed)
    assert len(values["log_ratios"]) == 20
    assert values["a"]["sha256"] == trained.artifacts["onnx-float32"].sha256


def test_without_data_speed_alone_is_compared(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    as_slow_as(monkeypatch, 0.5)
    files = [trained.artifacts["onnx-float32"].path] * 3
    found = versus_verb(files, None, "onnxruntime")
    assert len(found) == 2
    assert {one.speed.comparisons for one in found} == {2}
    assert all(one.accuracy is None for one in found)
    assert "accuracy  not compared: no data was given" in str(found[0])
    with pytest.raises(SettingError, match="1 file to compare; wanted two or more"):
        versus_verb(files[:1])


def test_a_is_the_first_file_and_several_are_judged_together(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    as_slow_as(monkeypatch, 1.0)
    # The second is wrong on six pictures more: p = 2 / 2^6 = 0.031, which holds alone, and not among three.
    n = len(trained.dataset.part("test"))
    said = {"onnx-float32": [True] * n, "onnx-int8": [False] * 6 + [True] * (n - 6)}
    by_sha = {trained.artifacts[kind].sha256: right for kind, right in said.items()}
    monkeypatch.setattr(versus_module, "scored_of", lambda one, _: by_sha[one.artifact.sha256])
    first, second = (trained.artifacts[kind].path for kind in said)
    (alone,) = versus_verb([first, second], trained.dataset, "onnxruntime")
    assert alone.accuracy is not None
    assert (alone.accuracy.a, alone.accuracy.b) == (1.0, pytest.approx(1 - 6 / n))
    assert alone.accuracy.difference.value == pytest.approx(6 / n)
    assert alone.accuracy.test == McNemar(6, 0, 2 / 2**6)
    assert alone.accuracy.shown
    assert "Holm" not in str(alone.accuracy)
    among = versus_verb([first, second, first, first], trained.dataset, "onnxruntime")
    assert [one.accuracy.shown for one in among if one.accuracy is not None] == [False] * 3
    assert "p = 0.031, Holm over 3 comparisons" in str(among[0].accuracy)


def test_what_went_on_meanwhile_is_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    as_slow_as(monkeypatch, 1.0)
    given: list[Any] = []

    def told(*arguments: Any) -> tuple[str, ...]:
        given.extend(arguments)
        return ("others took 40 % of the processor",)

    monkeypatch.setattr(versus_module, "reasons", told)
    (found,) = versus_verb([trained.artifacts["onnx-float32"].path] * 2, None, "onnxruntime")
    assert found.disturbed == ("others took 40 % of the processor",)
    assert "note      others took 40 % of the processor" in str(found)
    assert found.as_dict()["disturbed"] == ["others took 40 % of the processor"]
    assert [type(one).__name__ for one in given] == ["dict", "dict", "Load"]


@pytest.mark.parametrize("bare_first", [False, True])
def test_the_reason_of_either_side_is_given(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, bare_first: bool
) -> None:
    as_slow_as(monkeypatch, 1.0)
    whole = trained.artifacts["onnx-float32"]
    files = [whole.model_path, whole.path] if bare_first else [whole.path, whole.model_path]
    (found,) = versus_verb(files, trained.dataset, "onnxruntime")
    assert "accuracy  not compared: a bare model file does not say its classes" in str(found)


def test_threads_that_are_not_there_are_refused(trained: Trained) -> None:
    files, most = [trained.artifacts["onnx-float32"].path] * 2, available_cores()
    with pytest.raises(SettingError, match=f"{most + 1} threads; this process may use 1 to {most} cores"):
        versus_verb(files, settings=Settings(threads=most + 1))


def test_which_pictures_are_right(trained: Trained) -> None:
    one = case(trained, "onnx-float32")
    pictures = pictures_of(one.artifact, trained.dataset, "test")
    right = scored_of(one, pictures)
    assert right is not None
    assert len(right) == len(pictures.items)
    assert sum(right) / len(right) >= 0.7
    assert scored_of(one, pictures_of(one.artifact, None, None)) is None


def test_accuracies_differ_only_where_interval_and_test_say_so() -> None:
    def held(a: Sequence[bool], b: Sequence[bool]) -> Accuracies:
        return Accuracies(sum(a) / len(a), sum(b) / len(b), accuracy_difference(a, b), mcnemar(a, b), "test")

    good, bad = [True] * 100, [True] * 80 + [False] * 20
    assert held(good, bad).shown
    assert str(held(good, bad)).startswith("more accurate: 100.0 % against 80.0 %, +20.0 points")
    assert str(held(bad, good)).startswith("less accurate: 80.0 % against 100.0 %")
    assert not held(good, good).shown
    assert str(held(good, [*good[:99], False])).startswith("no difference shown")


# ---------------------------------------------------------------------------------------------------------- findings


def test_int8_is_held_against_the_float_file_beside_it(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    as_slow_as(monkeypatch, 1.3)
    new = case(trained, "onnx-int8")
    record = make_record(name=new.artifact.name, compute_precision="int8+float32", latency_p50_ms=0.1)
    (said, *_) = findings_of_all([(new, record, pictures_of(new.artifact, trained.dataset, "test"))])[new]
    assert said.startswith("int8 is slower than ")
    assert trained.artifacts["onnx-float32"].name in said
    assert "likely" in said
    assert "not fused" in said
    assert "0.1 ms" in said
    as_slow_as(monkeypatch, 0.5)
    (said, *_) = findings_of_all([(new, record, pictures_of(new.artifact, None, None))])[new]
    assert said.startswith("int8 is faster than ")
    assert "likely" not in said


def test_a_file_without_an_ancestor_has_no_findings(trained: Trained, tmp_path: Path) -> None:
    nothing = Pictures(None, None, (), "no data was given")
    float32 = case(trained, "onnx-float32")
    assert findings_of_all([(float32, make_record(), nothing)])[float32] == ()
    bare = replace(float32.artifact, classes=None)
    assert ancestor_of(bare) is None


def test_an_ancestor_that_cannot_run_is_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> Against:
        raise MeasureError("it died")

    monkeypatch.setattr(findings_module, "hold", dies)
    new = case(trained, "onnx-int8")
    (said,) = findings_of_all([(new, make_record(), Pictures(None, None, (), "no data was given"))])[new]
    assert "not held against" in said
    assert "it died" in said


def lineage(path: Path, name: str, *steps: str, **changes: Any) -> Artifact:
    return make_artifact(path / name, name=name, steps=tuple(Step(step, {}) for step in steps), **changes)


def test_the_nearest_ancestor_by_lineage(tmp_path: Path) -> None:
    float32 = lineage(tmp_path, "float", "build", "train", "export")
    int8 = lineage(tmp_path, "int8", "build", "train", "export", "quantize", precision="int8")
    pruned = lineage(tmp_path, "pruned", "build", "train", "prune", "export")
    pruned_int8 = lineage(tmp_path, "pruned-int8", "build", "train", "prune", "export", "quantize", precision="int8")
    lineage(tmp_path, "other", "build", "distil", "export")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "artifact.json").write_text("{")
    found = {one.name: ancestor_of(one) for one in (float32, int8, pruned, pruned_int8)}
    names = {name: None if one is None else one.name for name, one in found.items()}
    assert names == {"float": None, "int8": "float", "pruned": "float", "pruned-int8": "pruned"}


def test_a_float_file_is_held_against_a_float_file(tmp_path: Path) -> None:
    # The one in int8 is nearer by lineage, and of the same format.
    far = lineage(tmp_path, "far", "build", "train", "export", file="model.tflite", format="litert")
    lineage(tmp_path, "near", "build", "train", "prune", "export", "quantize", precision="int8")
    new = lineage(tmp_path, "new", "build", "train", "prune", "tune", "export")
    found = ancestor_of(new)
    assert found is not None
    assert found.name == far.name
    same = lineage(tmp_path, "same", "build", "train", "export")  # and of the two, that of the same format
    found = ancestor_of(new)
    assert found is not None
    assert found.name == same.name


def against(
    trained: Trained, new: str, old: str, ratio: float, a: Sequence[bool] = (True,), b: Sequence[bool] = (True,)
) -> Against:
    return held_so(case(trained, new), case(trained, old), ratio, a, b)


def held_so(
    new: Case, old: Case, ratio: float, a: Sequence[bool] = (True,), b: Sequence[bool] = (True,), noise: float = 0.001
) -> Against:
    """The pairs said `ratio`, 21 of them; the pictures were right so."""
    ratios = tuple(math.log(ratio) + noise * i for i in range(-10, 11))
    accuracy = Accuracies(sum(a) / len(a), sum(b) / len(b), accuracy_difference(a, b), mcnemar(a, b), "test")
    return Against(new, old, ratios, verdict(ratios), accuracy, None, ())


def sentences(one: Against, measured_by: str | None = None, **changes: Any) -> list[str]:
    runtime = measured_by or one.a.runtime
    record = make_record(runtime=runtime, latency_p50_ms=50.0, **changes)
    return list(findings_module._sentences(one, Case(one.a.artifact, runtime, Settings()), record))


def made(path: Path, name: str, *steps: str, runtime: str = "onnxruntime", **changes: Any) -> Case:
    return Case(lineage(path, name, *steps, **changes), runtime, Settings())


GOOD, BAD = [True] * 200, [True] * 170 + [False] * 30


def test_a_loss_of_accuracy_beyond_what_is_allowed_is_said(trained: Trained) -> None:
    said = sentences(against(trained, "onnx-int8", "onnx-float32", 0.5, BAD, GOOD))
    assert len(said) == 2
    assert "loses more accuracy than the allowed 1 points" in said[1]
    assert "calibrate" in said[1]
    assert "fine-tune" not in said[1]
    assert ALLOWED_LOSS == 0.01
    slight = [True] * 199 + [False]
    assert len(sentences(against(trained, "onnx-int8", "onnx-float32", 0.5, slight, GOOD))) == 1


def test_a_large_loss_that_is_not_shown_is_said(trained: Trained) -> None:
    # 3 of 50 pictures: 6 points, p = 0.25. One of 50 is no large loss.
    few, three, one = [True] * 50, [True] * 47 + [False] * 3, [True] * 49 + [False]
    (_, said) = sentences(against(trained, "onnx-int8", "onnx-float32", 0.5, three, few))
    assert said.startswith("int8 is 6.0 points less accurate, not shown on so few pictures: ")
    assert len(sentences(against(trained, "onnx-int8", "onnx-float32", 0.5, one, few))) == 1
    assert len(sentences(against(trained, "onnx-int8", "onnx-float32", 0.5, few, three))) == 1


def test_a_pruned_file_is_advised_by_what_was_done(tmp_path: Path) -> None:
    base = made(tmp_path, "base", "train", "export")
    pruned = made(tmp_path, "pruned", "train", "prune", "export")
    (_, said) = sentences(held_so(pruned, base, 0.5, BAD, GOOD))
    assert said.startswith("the changed network loses more accuracy")
    assert said.endswith("fine-tune it longer, or keep more channels")
    both = made(tmp_path, "both", "train", "prune", "export", "quantize", precision="int8")
    first, said = sentences(held_so(both, base, 0.5, BAD, GOOD))
    assert first.startswith("the changed network in int8, where the other is in float32, is faster than base")
    assert "fine-tune it longer" in said
    assert "calibrate" in said


def test_float_after_int8_is_not_called_quantized(tmp_path: Path) -> None:
    old = made(tmp_path, "old", "train", "export", "quantize", precision="int8")
    new = made(tmp_path, "new", "train", "prune", "export")
    first, second = sentences(held_so(new, old, 1.5, BAD, GOOD))
    assert first.startswith("the changed network in float32, where the other is in int8, is slower than old")
    assert "likely it computes in float32 and old in int8" in first
    assert "calibrate" not in second


def test_both_are_run_by_one_runtime_where_one_runs_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(threads=2, provider="cpu", precision="float32")
    old = lineage(tmp_path, "old", "train", "export")
    new = lineage(tmp_path, "new", "train", "export", precision="int8", file="model.tflite", format="litert")
    runs = {"old": ["onnxruntime", "openvino"], "new": ["litert", "openvino"]}
    monkeypatch.setattr(findings_module, "supporting", lambda one, _: runs[one.name])
    a, b = two_sides(Case(new, "openvino", settings), old)  # the case's own runtime, though not the first
    assert (a.runtime, b.runtime, a.settings, b.settings) == ("openvino", "openvino", settings, settings)
    a, b = two_sides(Case(new, "litert", settings), old)  # another one that runs both, on as many threads
    assert (a.runtime, b.runtime, a.artifact, b.artifact) == ("openvino", "openvino", new, old)
    assert a.settings == b.settings == Settings(threads=2)
    said = sentences(held_so(a, b, 1.3), measured_by="litert", compute_precision="int8+float32")[0]
    assert said.startswith("int8 by openvino is slower than old, which it was made from: ")
    assert "held by openvino, as litert does not run old" in said
    assert "not fused" not in said  # that was litert's run
    assert "no verdict" not in said
    runs["new"] = ["litert"]
    a, b = two_sides(Case(new, "litert", settings), old)
    assert (a.runtime, b.runtime, a.settings, b.settings) == ("litert", "onnxruntime", settings, Settings(threads=2))
    said = sentences(held_so(a, b, 1.3))[0]
    assert said.startswith("int8 by litert is slower than old by onnxruntime, which it was made from: ")
    assert "; likely the other runtime (litert ran it and onnxruntime the other; none here runs both); and" in said
    assert said.endswith("; so this is no verdict on the change alone")
    said = sentences(held_so(a, b, 0.5))[0]
    assert "is faster than old by onnxruntime" in said
    assert "; part of it may be the other runtime (" in said
    assert said.endswith("; so this is no verdict on the change alone")


def test_another_size_and_other_data_are_said(tmp_path: Path) -> None:
    steps = (Step("build", {"data": "feed"}), Step("train", {}))
    old = Case(make_artifact(tmp_path / "old", name="old", steps=steps), "onnxruntime", Settings())
    more = (*steps, Step("train", {"data": "cafe"}))
    new = Case(make_artifact(tmp_path / "new", name="new", steps=more, height=16), "onnxruntime", Settings())
    first, second = sentences(held_so(new, old, 1.5, BAD, GOOD))
    for said in (first, second):
        assert "the other size of pictures (16×8 against 8×8 pixels); and the other data that it was trained" in said
        assert "so this is no verdict on the change alone" in said
    assert "runtime (" not in first


def test_all_of_a_session_are_judged_together_and_share_their_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage(tmp_path, "old", "train", "export")
    files = [lineage(tmp_path, f"new-{n}", "train", "export", "quantize", precision="int8") for n in (1, 2)]
    cases = [Case(one, runtime, Settings()) for one in files for runtime in ("openvino", "litert")]
    held: list[tuple[str, str]] = []

    def hold_so(a: Case, b: Case, *_: Any) -> Against:
        held.append((a.artifact.name, a.runtime))
        # 6 of 6 pictures to one side, p = 0.031: shown alone, and not among two.
        return held_so(a, b, 0.5, [False] * 6 + [True] * 60, [True] * 66)

    monkeypatch.setattr(findings_module, "hold", hold_so)
    monkeypatch.setattr(findings_module, "supporting", lambda *_: ["openvino"])
    nothing = Pictures(None, None, (), "no data was given")
    found = findings_of_all([(one, make_record(runtime=one.runtime), nothing) for one in cases])
    assert list(found) == cases
    assert held == [("new-1", "openvino"), ("new-2", "openvino")]
    for said in found.values():
        assert len(said) == 2
        assert "pairs), Holm over 2 comparisons" in said[0]
        assert "not shown on so few pictures" in said[1]
        assert "Holm over 2 comparisons" in said[1]
    (alone,) = findings_of_all([(cases[0], make_record(runtime="openvino"), nothing)]).values()
    assert "loses more accuracy than the allowed" in alone[1]


def a_row(kind: str, channels: int = 8, traffic_bytes: int = 100, dtype: str = "int8") -> Row:
    shape = (1, 4, 4, channels)
    return Row("name", kind, "layer", "stage", (shape,), shape, dtype, 0, 0, 0, 0, 0, 0, traffic_bytes, None, None, "")


def test_causes_by_the_network() -> None:
    def said(rows: Sequence[Row], changed: bool = True) -> list[str]:
        return list(findings_module._network_causes(rows, changed))

    quiet = [a_row("convolution", 16, 800), a_row("depthwise", 16, 200)]
    assert said(quiet) == []
    assert said([]) == []
    assert said([a_row("convolution", 16, 700), a_row("depthwise", 16, 300)], changed=False) == [
        "30% of the bytes it moves are for depthwise convolutions, bound by memory, not arithmetic"
    ]
    odd = [*quiet, a_row("convolution", 13), a_row("depthwise", 9, 1), a_row("dense", 3)]
    assert said(odd, changed=False) == []
    (only,) = said(odd)
    assert only.startswith("2 of its 4 convolutions have a number of filters that is no multiple of 8")


def test_the_causes_of_a_changed_network_are_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Read:
        rows = (a_row("convolution", 13, 60, "float32"), a_row("depthwise", 8, 40, "float32"))

    monkeypatch.setattr(findings_module, "analyze", lambda _: Read)
    old, new = made(tmp_path, "old", "train", "export"), made(tmp_path, "new", "train", "prune", "export")
    depthwise, odd = causes(held_so(new, old, 1.0), make_record(latency_p50_ms=50.0))
    assert depthwise.startswith("40% of the bytes")
    assert odd.startswith("1 of its 2 convolutions")


def test_causes_by_what_stands_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class New:
        instructions = ("avx512_vnni",)

    monkeypatch.setattr(findings_module, "this_device", New)
    ends = [a_row("quantize"), a_row("convolution"), a_row("depthwise", dtype="uint8"), a_row("dequantize")]
    assert list(findings_module._int8_causes(ends, None)) == []
    more = [*ends, a_row("convolution", dtype="float32"), a_row("quantize")]
    assert list(findings_module._int8_causes(more, None)) == [
        "1 of its 3 convolutions are in float in the file",
        "3 quantize and dequantize operators are left in the file, beside 3 convolutions",
    ]
    record = make_record(compute_precision="int8+float32")
    assert "onnxruntime runs part of it in float" in next(findings_module._int8_causes(more, record))


def test_causes_by_processor_and_network(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        instructions = ("sse4_1",)

    monkeypatch.setattr(findings_module, "this_device", Old)
    found = causes(against(trained, "onnx-int8", "onnx-float32", 1.2), make_record(compute_precision="int8"))
    assert "no instruction for sums of 8-bit products" in found[0]
    assert not any("not fused" in cause for cause in found)
    same = against(trained, "onnx-float32", "onnx-float32", 1.0)
    found = causes(same, make_record(latency_p50_ms=50.0))
    assert found  # never nothing
    assert not any("8-bit" in cause for cause in found)


def test_a_file_that_cannot_be_analyzed_has_an_unknown_cause(trained: Trained, tmp_path: Path) -> None:
    broken = make_artifact(tmp_path / "broken")
    one = replace(against(trained, "onnx-float32", "onnx-float32", 1.0), a=Case(broken, "onnxruntime", Settings()))
    assert causes(one, make_record())[-1].startswith("unknown, as the file cannot be analyzed: ")


def test_holding_is_the_same_as_comparing(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    as_slow_as(monkeypatch, 0.9)
    one, other = case(trained, "onnx-float32"), case(trained, "onnx-int8")
    found = hold(one, other, pictures_of(one.artifact, trained.dataset, "test"), PairProtocol())
    assert found.speed.word == "faster"
    assert isinstance(found.accuracy, Accuracies)
    assert isinstance(found.accuracy.test, McNemar)
    assert isinstance(found.accuracy.difference, Difference)
    assert versus_module.side_dict(one)["runtime"] == "onnxruntime"
