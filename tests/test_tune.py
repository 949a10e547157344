"""Tuning: who is in, who is out after what, what is chosen; by scripted processes, and once by real ones."""

import base64
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight import predict as predict_verb
from featherweight import tune as tune_verb
from featherweight.artifact import Artifact, Choice, read_artifact, write_choice
from featherweight.device import available_cores, this_device
from featherweight.errors import MeasureError, OutputError, RuntimeFailure, SettingError
from featherweight.measure.one import Case, Pictures
from featherweight.measure.samples import read_samples
from featherweight.predict import load
from featherweight.runtimes import RUNTIMES
from featherweight.runtimes.settings import Options, Settings
from featherweight.stats import ratio_interval
from featherweight.tune import MOST_ALIVE, Limits, claim, configurations, most_alive, plainest
from featherweight.tune.agreement import disagreement, hold_accuracy, hold_outputs, is_constant, outputs_off
from featherweight.tune.race import QUICK, Runner, eliminate, heats, race
from tests.make import make_artifact
from tests.trained import Trained

# The modules, whose names in the package are the verbs.
TUNE, MEASURE = sys.modules["featherweight.tune"], sys.modules["featherweight.measure.one"]
VERBS = (TUNE, MEASURE)
SHORT = Limits(legs=2, rounds=6, block_seconds=0, warmup_seconds=0, pairs=6, most_pairs=6, pictures=40)


@dataclass
class Script:
    """What scripted processes do: milliseconds of a run, outputs, and at which command one dies."""

    ms: dict[str, float] = field(default_factory=dict)  # by way, see `Runner.way`; else 10
    outputs: dict[str, Any] = field(default_factory=dict)  # by way; else the golden ones
    dies: dict[str, str] = field(default_factory=dict)  # way → command
    alive: int = 0
    most: int = 0  # that were alive at once
    starts: list[str] = field(default_factory=list)
    noise: random.Random = field(default_factory=lambda: random.Random(0))


class Scripted:
    """In place of a `Worker`."""

    script = Script()

    def __init__(self, artifact: Artifact, runtime: str, settings: Settings, cpus: Sequence[int] | None = None):
        self.way = Runner(Case(artifact, runtime, settings)).way
        self.artifact, self.settings = artifact, settings
        self.script.starts.append(self.way)
        self.script.alive += 1
        self.script.most = max(self.script.most, self.script.alive)

    def __enter__(self) -> "Scripted":
        return self

    def __exit__(self, *_: object) -> None:
        self.script.alive -= 1

    def load(self) -> dict[str, Any]:
        return {"ran": {"precision": "float32", "layout": "NCHW", "asked": asdict(self.settings)}, **self.ask("load")}

    def ask(self, command: str, takes_seconds: float = 0.0, **values: Any) -> dict[str, Any]:
        if self.script.dies.get(self.way) == command:
            raise MeasureError(f"the process that ran {self.way} died with signal 11")
        if command == "outputs":
            golden = None if self.artifact.foreign else self.artifact.golden()[1].tolist()
            outputs = np.array(self.script.outputs.get(self.way, golden), "<f4")
            return {"outputs": base64.b64encode(outputs.tobytes()).decode(), "shape": list(outputs.shape)}
        ms = self.script.ms.get(self.way, 10.0) * math.exp(self.script.noise.gauss(0, 0.005))
        return {"ns": [int(ms * 1e6)] * 5}


@dataclass
class Stub:
    """A runtime that offers things and loads nothing."""

    name: str
    offers: Options
    missing: str | None = None

    def supports(self, artifact: Artifact) -> str | None:
        return self.missing

    def version(self) -> str:
        return "1.0"

    def options(self, artifact: Artifact) -> Options:
        return self.offers

    def load(self, artifact: Artifact, settings: Settings) -> Any:
        return self.name, settings


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Two runtimes: one with a second optimization, one with a second precision; two cores."""
    found = Script()
    monkeypatch.setattr(Scripted, "script", found)
    stubs = (
        Stub("onnxruntime", Options(("float32",), ("all", "extended"), ("cpu",))),
        Stub("openvino", Options(("bfloat16", "float32"), ("default",), ("cpu",))),
    )
    own = dict(RUNTIMES)
    RUNTIMES.clear()
    RUNTIMES.update((stub.name, stub) for stub in stubs)
    for module in ("race", "agreement"):
        monkeypatch.setattr(sys.modules[f"featherweight.tune.{module}"], "Worker", Scripted)
    for module in VERBS:
        monkeypatch.setattr(module, "available_cores", lambda: 2)

    def pairs(a: Case, b: Case, paths: Sequence[str], protocol: Any, rng: random.Random) -> list[float]:
        ways = [Runner(case).way for case in (a, b)]
        for way in ways:
            if found.dies.get(way) == "pair":
                raise MeasureError(f"{way} died with signal 9")
        ratio = math.log(found.ms.get(ways[0], 10.0) / found.ms.get(ways[1], 10.0))
        return [ratio + rng.gauss(0, 0.005) for _ in range(protocol.cap)]

    monkeypatch.setattr(TUNE, "log_ratios", pairs)
    yield found
    monkeypatch.undo()  # of what a test set in the table beside
    RUNTIMES.clear()
    RUNTIMES.update(own)  # in their order, which says who comes first


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "model")


DEFAULT = "onnxruntime, 1 thread"


def runners_of(artifact: Artifact) -> list[Runner]:
    return [Runner(case) for case in configurations(artifact)]


def by_way(runners: Sequence[Runner]) -> dict[str, Runner]:
    return {runner.way: runner for runner in runners}


# ---------------------------------------------------------------------------------------------- configurations


def test_every_way_that_is_offered_the_default_first(script: Script, artifact: Artifact) -> None:
    ways = [runner.way for runner in runners_of(artifact)]
    assert ways[0] == DEFAULT
    assert sorted(ways) == [
        "onnxruntime, 1 thread",
        "onnxruntime, 1 thread, extended",
        "onnxruntime, 2 threads",
        "onnxruntime, 2 threads, extended",
        "openvino, 1 thread",
        "openvino, 1 thread, float32",
        "openvino, 2 threads",
        "openvino, 2 threads, float32",
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"runtimes": "openvino", "threads": (2,)}, 1 + 2),  # and the default on one thread
        ({"threads": (1,)}, 4),
        ({"precisions": ("float32",)}, 6),
        ({"precisions": ("float16",)}, 1),
        ({"runtimes": "onnxruntime", "threads": (1, 1)}, 2),
    ],
)
def test_named_ones_only(script: Script, artifact: Artifact, arguments: dict[str, Any], wanted: int) -> None:
    assert len(configurations(artifact, **arguments)) == wanted


def test_threads_are_powers_of_two_and_all_cores(
    script: Script, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cores, wanted in ((1, {1}), (2, {1, 2}), (6, {1, 2, 4, 6}), (8, {1, 2, 4, 8})):
        for module in VERBS:
            monkeypatch.setattr(module, "available_cores", lambda cores=cores: cores)
        assert {case.settings.threads for case in configurations(artifact)} == wanted


def test_a_foreign_size_is_asked_of_all(script: Script, artifact: Artifact) -> None:
    assert {case.settings.input_size for case in configurations(artifact, input_size=(32, 64))} == {(32, 64)}


def test_unknown_names_are_refused(script: Script, artifact: Artifact) -> None:
    with pytest.raises(SettingError, match="unknown runtime 'tensorrt'"):
        configurations(artifact, "tensorrt")
    with pytest.raises(SettingError, match="3 threads; this process may use 1 to 2"):
        configurations(artifact, threads=(3,))


# --------------------------------------------------------------------------------------------------- agreement

WANTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (WANTED, None),
        (WANTED + np.float32(0.01), None),
        ([[0.66, 0.24, 0.1], [0.1, 0.1, 0.8]], None),  # half of 0.04 + 0.04
        ([[0.64, 0.26, 0.1], [0.1, 0.1, 0.8]], "outputs off by 0.06, allowed are 0.05"),
        ([[0.2, 0.7, 0.1], [0.8, 0.1, 0.1]], "another first class on 2 of 2 inputs"),
        ([[0.7, 0.2, 0.1], [0.1, 0.1, np.nan]], "gives outputs that are no numbers"),
        ([[0.7, 0.3], [0.2, 0.8]], "gives outputs (2, 2), wanted (2, 3)"),
    ],
)
def test_which_outputs_agree(found: Any, why: str | None) -> None:
    said = disagreement(WANTED, np.array(found, np.float32))
    assert said == why


def test_raw_numbers_agree_as_a_whole() -> None:
    wanted = np.array([[[-4, 4], [-4, 4]]], np.float32)  # they deviate by 4
    assert disagreement(wanted, wanted + np.float32(0.39)) is None
    assert disagreement(wanted, wanted.reshape(1, 1, 4)) is None
    said = "outputs off by 0.12 of their spread, allowed are 0.1"
    assert disagreement(wanted, wanted + np.float32(0.5)) == said
    assert outputs_off(wanted, wanted + np.float32(0.5)) == pytest.approx(0.125)


def test_either_of_two_that_are_tied_may_come_first() -> None:
    tied = np.array([[0.400, 0.399, 0.201]], np.float32)  # by less than the 256th of an int8 output
    assert disagreement(tied, np.array([[0.399, 0.400, 0.201]], np.float32)) is None
    apart = np.array([[0.405, 0.399, 0.196]], np.float32)
    assert disagreement(apart, np.array([[0.399, 0.405, 0.196]], np.float32)) is not None


def test_how_far_off_has_no_unit() -> None:
    """Logits of any scale are held against the sum of their sizes."""
    found = np.array([[0.64, 0.26, 0.1], [0.1, 0.1, 0.8]], np.float32)
    for scale in (1, -1, 1000, 1e-6):
        assert outputs_off(WANTED * np.float32(scale), found * np.float32(scale)) == pytest.approx(0.06, rel=1e-3)
    zeros = np.zeros((1, 3), np.float32)
    assert outputs_off(zeros, zeros) == 0
    assert outputs_off(zeros, zeros + 1) > 1e9


def test_outputs_that_are_one_whatever_the_input_are_said_to_show_little(script: Script, artifact: Artifact) -> None:
    assert not is_constant(WANTED) and is_constant(np.full((3, 4), 0.25, np.float32))
    runners = runners_of(artifact)
    hold_outputs(runners)
    assert "shows little" not in (runners[0].agreement or "")


def test_who_dies_or_disagrees_is_out_and_the_others_go_on(script: Script, artifact: Artifact) -> None:
    golden = artifact.golden()[1]
    script.dies = {"openvino, 1 thread": "outputs", "openvino, 2 threads": "load"}
    script.outputs = {"onnxruntime, 2 threads": (1 - golden).tolist()}
    runners = runners_of(artifact)
    assert hold_outputs(runners) is runners[0]
    ways = by_way(runners)
    assert ways["openvino, 1 thread"].out == "outputs: the process that ran openvino, 1 thread died with signal 11"
    assert "died" in (ways["openvino, 2 threads"].out or "")
    assert (ways["onnxruntime, 2 threads"].out or "").startswith("outputs: ")
    assert ways["onnxruntime, 2 threads"].agreement is None
    kept = [runner for runner in runners if runner.out is None]
    assert len(kept) == 5
    assert {runner.agreement for runner in kept} == {"same first class on 2 golden inputs, off by at most 0"}


def test_the_next_one_is_the_default_where_the_first_fails(script: Script, artifact: Artifact) -> None:
    script.dies = {DEFAULT: "load"}
    assert hold_outputs(runners_of(artifact)).way == "onnxruntime, 2 threads"
    script.dies = {runner.way: "load" for runner in runners_of(artifact)}
    with pytest.raises(RuntimeFailure, match=r"nothing here runs tiny-8-float32 as it should: outputs: .* signal 11"):
        hold_outputs(runners_of(artifact))


def test_a_bare_file_is_held_against_its_default(script: Script, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(8))
    runners = runners_of(read_artifact(tmp_path / "net.tflite"))
    script.outputs = {runner.way: [[3.0, -1.0]] for runner in runners} | {"openvino, 1 thread": [[-1.0, 3.0]]}
    hold_outputs(runners)
    ways = by_way(runners)
    assert "1 inputs of noise, as the default answers them" in (ways[DEFAULT].agreement or "")
    assert ways["openvino, 1 thread"].out == "outputs: another first class on 1 of 1 inputs"


def test_two_that_do_the_same_are_one(script: Script, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "load", lambda self: {"ran": {"precision": "int8"}})
    runners = runners_of(artifact)
    hold_outputs(runners)
    assert {runner.way: runner.out for runner in runners if runner.out} == {
        "onnxruntime, 1 thread, extended": "does the same as onnxruntime, 1 thread",
        "onnxruntime, 2 threads, extended": "does the same as onnxruntime, 2 threads",
        "openvino, 1 thread, float32": "does the same as openvino, 1 thread",
        "openvino, 2 threads, float32": "does the same as openvino, 2 threads",
    }


def test_whose_accuracy_is_lower_is_out(script: Script, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    right = {
        "onnxruntime, 1 thread": [True] * 90 + [False] * 10,
        "onnxruntime, 1 thread, extended": [True] * 89 + [False] * 11,  # one picture of 100 shows nothing
        "openvino, 1 thread": [True] * 70 + [False] * 30,
        "openvino, 1 thread, float32": None,
    }
    asked: list[int] = []

    def scored_of(case: Case, pictures: Pictures) -> list[bool]:
        asked.append(len(pictures.items))
        found = right[Runner(case).way]
        if found is None:
            raise MeasureError("it died with signal 11")
        return found

    monkeypatch.setattr(sys.modules["featherweight.tune.agreement"], "scored_of", scored_of)
    runners = runners_of(artifact)
    default = hold_outputs(runners)
    pictures = Pictures(None, "val", tuple(range(1000)), None)  # type: ignore[arg-type]
    hold_accuracy(runners, default, pictures, 100)
    ways = by_way(runners)
    for threads in ("1 thread", "2 threads"):  # threads do not change what is computed
        lower = ways[f"openvino, {threads}"].out or ""
        assert lower.startswith("accuracy: less accurate: 70.0 % against 90.0 %, -20.0 points")
        assert ways[f"openvino, {threads}, float32"].out == "accuracy: it died with signal 11"
        kept = ways[f"onnxruntime, {threads}, extended"]
        assert kept.out is None
        assert "accuracy: no difference shown: 89.0 % against 90.0 %" in (kept.agreement or "")
        assert "100 pictures" in (kept.agreement or "")
    assert asked == [100] * 5  # the default, and one of each arithmetic
    before = [runner.out for runner in runners]
    hold_accuracy(runners, default, replace(pictures, no_accuracy="no data was given"), 100)
    assert [runner.out for runner in runners] == before


# -------------------------------------------------------------------------------------------------------- race


def raced(artifact: Artifact, limits: Limits = SHORT, most: int = 20) -> tuple[list[Runner], list[Runner]]:
    runners = runners_of(artifact)
    default = hold_outputs(runners)
    return runners, race(runners, default, (), limits, random.Random(0), most)


def test_the_slow_are_out_after_a_leg_and_the_near_stay(script: Script, artifact: Artifact) -> None:
    script.ms = {runner.way: 20.0 for runner in runners_of(artifact)}
    script.ms |= {"openvino, 2 threads": 5.0, "openvino, 1 thread": 5.15, DEFAULT: 10.0}
    runners, left = raced(artifact, replace(SHORT, legs=4))
    assert [runner.way for runner in left] == ["openvino, 2 threads", "openvino, 1 thread"]
    for runner in runners:
        if runner not in left:
            assert (runner.out or "").startswith("leg 1: ")
    ways = by_way(runners)
    assert "4.0" in (ways["onnxruntime, 2 threads"].out or "")
    assert "× the time of openvino, 2 threads (" in (ways[DEFAULT].out or "")
    assert len(left[0].log_ratios) == len(left[0].block_ms) == 4 * 6  # four legs of fresh processes
    assert len(ways[DEFAULT].log_ratios) == 4 * 6  # what all are measured against runs on
    assert len(ways["onnxruntime, 2 threads"].log_ratios) == 6
    assert script.starts.count("openvino, 1 thread") == 1 + 4
    assert script.alive == 0
    best = left[0].ratio
    assert best is not None and best.low < 0.5 < best.high
    assert left[0].p50_ms == pytest.approx(5.0, rel=0.02)
    assert len(left[0].runs_ns) == len(left[0].run_blocks) == 5 * 4 * 6
    assert left[0].run_blocks[-1] == 4 * 6 - 1


def test_the_race_ends_when_one_is_left(script: Script, artifact: Artifact) -> None:
    script.ms = {"openvino, 1 thread": 2.0}
    _, left = raced(artifact, replace(SHORT, legs=50))
    assert [runner.way for runner in left] == ["openvino, 1 thread"]
    assert script.starts.count("openvino, 1 thread") == 2


@pytest.mark.parametrize("command", ["load", "inputs", "warm_up", "block"])
def test_who_dies_in_the_race_is_out(script: Script, artifact: Artifact, command: str) -> None:
    runners = runners_of(artifact)
    default = hold_outputs(runners)
    script.dies = {"openvino, 1 thread": command}
    left = race(runners, default, (), SHORT, random.Random(0), 20)
    out = [runner for runner in runners if runner not in left]
    assert [(runner.way, runner.out) for runner in out] == [
        ("openvino, 1 thread", "leg 1: the process that ran openvino, 1 thread died with signal 11")
    ]
    assert script.alive == 0
    script.dies = {runner.way: command for runner in runners if runner is not default}
    default.out = "leg 1: slower"  # and yet it is all that is left
    assert race(runners[1:], default, (), SHORT, random.Random(0), 20) == [default]
    script.dies = {DEFAULT: command}
    with pytest.raises(MeasureError, match="onnxruntime, 1 thread died"):
        race(runners, default, (), SHORT, random.Random(0), 20)
    assert script.alive == 0


def test_heats_hold_the_number_of_processes_down(script: Script, artifact: Artifact) -> None:
    script.ms = {"openvino, 2 threads": 5.0, "openvino, 1 thread": 5.1}
    _, left = raced(artifact, most=3)
    assert script.most == 3
    assert left[0].way == "openvino, 2 threads"
    runners = [Runner(Case(artifact, "opencv", Settings(threads))) for threads in range(1, 9)]
    for most in range(2, 10):
        groups = heats(runners, runners[0], most)
        assert all(group[0] is runners[0] and len(group) <= most for group in groups)
        assert sorted(runner.case.settings.threads for group in groups for runner in group[1:]) == list(range(2, 9))
    assert heats(runners[1:], runners[0], 20) == [runners]  # also where it is out itself
    assert heats(runners[:1], runners[0], 2) == [runners[:1]]


def test_out_is_whose_whole_interval_lies_beyond(artifact: Artifact) -> None:
    def runner(ratios: Sequence[float]) -> Runner:
        found = Runner(Case(artifact, "opencv", Settings()))
        found.log_ratios = {(1, place): math.log(ratio) for place, ratio in enumerate(ratios)}
        return found

    best, near, wide, behind = (
        runner([1.0] * 8), runner([1.04] * 8), runner([1.04] + [1.5] * 6 + [1.04]), runner([1.06, 1.2] * 4),
    )  # fmt: skip
    eliminate([wide, best, behind, near], 3, 0.05)
    assert (best.out, near.out) == (None, None)
    assert ratio_interval([math.log(x) for x in [1.04] + [1.5] * 6 + [1.04]]).low < 1.05  # type: ignore[union-attr]
    assert wide.out is None
    assert behind.out == "leg 3: 1.13 × the time of opencv, 1 thread (1.06–1.20, 8 rounds)"


# ----------------------------------------------------------------------------------------------- what is chosen


def test_the_plainer_is_chosen_within_the_margin(script: Script, artifact: Artifact) -> None:
    def runner(ratio: float, runtime: str, **settings: Any) -> Runner:
        found = Runner(Case(artifact, runtime, Settings(**settings)))
        found.log_ratios = {(1, 0): math.log(ratio)}
        return found

    fast = runner(0.50, "openvino", threads=2, precision="float32")
    assert plainest([fast, runner(0.511, "openvino", threads=2)]).ratio is None  # no interval of one round
    for other in (
        runner(0.509, "openvino", threads=2),  # nothing asked for
        runner(0.509, "openvino", threads=1, precision="float32"),  # fewer threads
        runner(0.509, "onnxruntime", threads=2, precision="float32"),  # first in the table
    ):
        assert plainest([fast, other]) is other
        assert plainest([other, fast]) is other
    assert plainest([fast, runner(0.52, "onnxruntime")]) is fast


def test_the_choice_is_written_and_predict_takes_it(script: Script, artifact: Artifact) -> None:
    script.ms = {"openvino, 2 threads": 4.0, "openvino, 1 thread": 7.0}
    before = artifact.model_path.read_bytes()
    tuned = tune_verb(artifact.path, limits=SHORT)
    assert tuned.choice.way == "openvino, 2 threads"
    assert tuned.verdict is not None and tuned.verdict.word == "faster" and tuned.verdict.ratio is not None
    assert tuned.verdict.ratio.median == pytest.approx(0.4, rel=0.02)
    found = read_artifact(artifact.path)
    assert found.model_path.read_bytes() == before and found.sha256 == artifact.sha256
    assert replace(found, tuned={}) == artifact
    choice = found.tuned[this_device().id]
    assert (choice.runtime, choice.settings["threads"], choice.quick) == ("openvino", 2, False)
    assert choice.ratio_to_default is not None
    assert choice.ratio_to_default[1] < 0.4 < choice.ratio_to_default[2]
    assert choice.p50_ms == pytest.approx(4.0, rel=0.02)
    assert choice.versions["openvino"] == "1.0"
    assert load(found) == ("openvino", Settings(threads=2))
    # what the user names comes first
    assert load(found, "onnxruntime") == ("onnxruntime", Settings())
    assert load(found, None, 1) == ("onnxruntime", Settings())


@pytest.mark.parametrize(("log_ratios", "chosen"), [((0.5, -0.6, 0.4, -0.4, 0.1, -0.2), True), ((0.1,) * 6, False)])
def test_the_best_of_the_race_is_chosen_unless_its_pairs_speak_against_it(
    script: Script,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    log_ratios: tuple[float, ...],
    chosen: bool,
) -> None:
    script.ms = {"openvino, 2 threads": 4.0}
    monkeypatch.setattr(TUNE, "log_ratios", lambda *_: list(log_ratios))
    tuned = tune_verb(artifact.path, limits=SHORT)
    assert tuned.best.way == "openvino, 2 threads"
    assert tuned.choice is (tuned.best if chosen else tuned.default)
    assert (read_artifact(artifact.path).tuned[this_device().id].ratio_to_default is not None) is chosen
    if chosen:
        assert "speed     no difference shown" in tuned.text()
    else:
        assert "speed     the default, as openvino, 2 threads was slower" in tuned.text()


def test_pairs_go_on_while_their_interval_is_wide(
    script: Script, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    script.ms = {"openvino, 2 threads": 4.0}
    monkeypatch.setattr(TUNE, "log_ratios", lambda a, b, paths, protocol, rng: asked.append(protocol) or [-0.1] * 6)
    tune_verb(artifact.path, limits=replace(SHORT, most_pairs=30))
    assert [(protocol.start, protocol.cap) for protocol in asked] == [(6, 30)]


def test_the_best_dying_in_its_pairs_leaves_the_default(script: Script, artifact: Artifact) -> None:
    script.ms = {"openvino, 2 threads": 4.0}
    script.dies = {"openvino, 2 threads": "pair"}
    tuned = tune_verb(artifact.path, limits=SHORT)
    assert tuned.choice is tuned.default and tuned.verdict is None
    assert tuned.best.out == "claim: openvino, 2 threads died with signal 9"
    assert "speed     the default; openvino, 2 threads was the fastest and failed" in tuned.text()


def test_the_default_is_held_against_nothing(script: Script, artifact: Artifact) -> None:
    script.ms = {DEFAULT: 4.0}
    tuned = tune_verb(artifact.path, limits=QUICK)
    assert tuned.choice is tuned.default is tuned.best and tuned.log_ratios == ()
    assert claim(tuned.default, tuned.default, (), SHORT, random.Random(0)) == ()
    assert "the default is the fastest" in tuned.text()
    assert "(quick: less than a choice needs to be sure)" in tuned.text()
    assert read_artifact(artifact.path).tuned[this_device().id].quick


def test_a_quick_choice_does_not_replace_that_of_a_full_race(script: Script, artifact: Artifact) -> None:
    script.ms = {"openvino, 2 threads": 4.0}
    tune_verb(artifact.path, limits=SHORT)
    script.ms = {"openvino, 1 thread": 4.0}
    tuned = tune_verb(artifact.path, limits=QUICK)
    assert not tuned.written
    assert tuned.text().endswith("keeps the choice of a full race; this quick one was not written")
    assert read_artifact(artifact.path).tuned[this_device().id].settings["threads"] == 2


def test_a_bare_file_is_tuned_and_nothing_is_written(script: Script, tmp_path: Path) -> None:
    bare = tmp_path / "net.tflite"
    bare.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(8))
    ways = [runner.way for runner in runners_of(read_artifact(bare))]
    script.outputs = {way: [[3.0, -1.0]] for way in ways}
    script.ms = {"openvino, 2 threads, float32": 4.0}
    tuned = tune_verb(bare, limits=SHORT)
    assert not tuned.written
    assert [path.name for path in tmp_path.iterdir()] == ["net.tflite"]
    assert tuned.text().endswith(
        "is a bare model file: nothing was written. Measure it so with --runtime openvino --threads 2 "
        "--precision float32"
    )


def test_the_result_is_told_and_kept_with_every_run(script: Script, artifact: Artifact, tmp_path: Path) -> None:
    script.ms = {"openvino, 2 threads": 4.0}
    script.dies = {"openvino, 1 thread, float32": "outputs"}
    output = tmp_path / "tuned.jsonl"
    first = tune_verb(artifact.path, limits=SHORT, output=output)
    tune_verb(artifact.path, limits=SHORT, output=output, seed=1)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert lines[0] == json.loads(json.dumps(first.as_dict()))
    assert len(lines) == 2 and lines[1]["device_id"] == this_device().id
    rows = {row["out"] or row["runtime"]: row for row in lines[0]["configurations"]}
    assert len(lines[0]["configurations"]) == 8
    dead = next(row for why, row in rows.items() if "signal 11" in why)
    assert (dead["p50_ms"], dead["ratio_to_default"], dead["chosen"]) == (None, None, False)
    assert sum(row["chosen"] for row in lines[0]["configurations"]) == 1
    samples = read_samples(output, lines[0]["samples"])
    place = first.runners.index(first.choice)
    assert samples[f"{place}_infer_ns"].tolist() == first.choice.runs_ns
    assert len(samples) == 2 * 8
    text = first.text().splitlines()
    assert text[2].startswith("→ openvino, 2 threads") and "chosen" in text[2]
    assert "signal 11" in text[9]  # what never ran comes last
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"\xff\xd8")
    with pytest.raises(OutputError, match=r"photo\.jpg is no file of results; name another file"):
        tune_verb(artifact.path, limits=SHORT, output=other)
    with pytest.raises(OutputError, match="cannot write"):
        tune_verb(artifact.path, limits=SHORT, output=tmp_path)


def test_the_same_seed_takes_the_same_orders(script: Script, artifact: Artifact) -> None:
    def starts(seed: int) -> list[str]:
        script.starts.clear()
        tune_verb(artifact.path, limits=SHORT, seed=seed)
        return script.starts[8:]  # behind the answers, which are taken side by side

    assert starts(3) == starts(3) != starts(4)


@pytest.mark.parametrize(
    "changes",
    [{"legs": 0}, {"rounds": 5}, {"pairs": 5}, {"pictures": 0}, {"behind": 0}, {"behind": 1}, {"block_seconds": -1},
     {"warmup_seconds": float("inf")}, {"warmup_runs": 0}],
)  # fmt: skip
def test_limits_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="wanted"):
        replace(Limits(), **changes)


def test_memory_decides_how_many_live_at_once() -> None:
    gib = 2**30
    assert most_alive({"memory_available_bytes": 8 * gib, "memory_limit_bytes": "none"}, 4_000_000) == 19
    assert most_alive({"memory_available_bytes": 8 * gib, "memory_limit_bytes": 4 * gib}, 4_000_000) == 9
    assert most_alive({"memory_available_bytes": "unknown"}, 4_000_000) == 2
    assert most_alive({"memory_available_bytes": 4 * gib}, 10 * gib) == 2
    assert most_alive({"memory_available_bytes": 2000 * gib}, 4_000_000) == MOST_ALIVE


# ------------------------------------------------------------------------------------------------ stale choices


def stale(artifact: Artifact, caplog: pytest.LogCaptureFixture, **changes: Any) -> str:
    choice = Choice(
        runtime="openvino",
        settings=asdict(Settings(threads=2)),
        p50_ms=4.0,
        ratio_to_default=None,
        agreement="",
        date="2026-01-02T03:04:05+00:00",
        quick=False,
        versions={"openvino": "1.0"},
    )
    tuned = write_choice(artifact, this_device().id, replace(choice, **changes))
    caplog.clear()
    with caplog.at_level("WARNING", "featherweight"):
        found = load(tuned)
    if not caplog.messages:
        assert found == ("openvino", Settings(threads=2))
        return ""
    assert found == ("onnxruntime", Settings())
    (line,) = caplog.messages
    return line


def test_a_choice_that_does_not_hold_any_more_costs_a_line(
    script: Script, artifact: Artifact, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stale(artifact, caplog) == ""
    assert stale(artifact, caplog, versions={"openvino": "0.9"}) == (
        "the tuned choice for tiny-8-float32 is passed over: it was found with openvino 0.9, here is 1.0. Tune it again"
    )
    assert "unknown runtime 'tensorrt'" in stale(artifact, caplog, runtime="tensorrt")
    assert "settings {'threads': 2}; wanted threads, precision" in stale(artifact, caplog, settings={"threads": 2})
    for name, wrong in (("threads", "2"), ("input_size", [1]), ("precision", 32), ("threads", 0)):
        assert "passed over" in stale(artifact, caplog, settings={**asdict(Settings()), name: wrong})
    monkeypatch.setitem(RUNTIMES, "openvino", Stub("openvino", Options((), (), ()), "openvino is not installed"))
    assert "passed over: openvino is not installed. Tune it again" in stale(artifact, caplog)


def test_a_choice_of_another_device_is_not_looked_at(
    script: Script, artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    choice = Choice("tensorrt", {}, 1.0, None, "", "", False, {})
    assert load(write_choice(artifact, "another", choice)) == ("onnxruntime", Settings())
    assert not caplog.messages


# ------------------------------------------------------------------------------------------------- for real


def test_a_real_file_by_real_processes(trained: Trained, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(trained.artifacts["litert-int8"].path, folder)
    limits = replace(SHORT, legs=1, block_seconds=0.002)
    picture = trained.dataset.part("test")[0].path
    usual = predict_verb(folder, picture)
    tuned = tune_verb(folder, trained.dataset, "litert", (1,), limits=limits)
    ways = by_way(tuned.runners)
    assert set(ways) == {"litert, 1 thread", "litert, 1 thread, builtin"}
    for runner in tuned.runners:
        assert "golden inputs" in (runner.agreement or "")
        assert f"{min(40, len(trained.dataset.part('val')))} pictures" in (runner.agreement or "")
        assert runner.ratio is not None and runner.p50_ms is not None and runner.p50_ms > 0
        assert runner.ran is not None and runner.ran["precision"] == "int8"
    found = read_artifact(folder)
    assert found.tuned[this_device().id].runtime == "litert"
    again = predict_verb(folder, picture)
    assert again[0]["predictions"][0]["label"] == usual[0]["predictions"][0]["label"]
    assert available_cores() >= 1
