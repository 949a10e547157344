"""A file against the one that it was made from: is it faster, as it was made to be, and is it as accurate?

The ancestor is found by lineage among the artifacts that lie beside. Both are run in pairs of fresh processes on the
same threads, by the same runtime wherever one runs both. Where int8 is slower than float, a pruned file not faster, or
a file less accurate than allowed, that is said with what most likely is the cause, read from the file and the
processor; what else than the change itself differs (the runtime, the size of the pictures, the data) is said first.

In scope: the ancestor, the sentences, the causes. Imports analyze, artifact, device, errors, one, pairs, runtimes,
stats and versus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from featherweight.analyze import analyze
from featherweight.analyze.costs import Row
from featherweight.artifact import MANIFEST, Artifact, Step, read_artifact
from featherweight.device import this_device
from featherweight.errors import FeatherweightError
from featherweight.measure.one import Case, Pictures
from featherweight.measure.pairs import PairProtocol
from featherweight.measure.versus import Accuracies, Against, hold, judged
from featherweight.progress import logger
from featherweight.record import Record
from featherweight.runtimes import supporting
from featherweight.stats import NOT_SHOWN

# A file may lose so much accuracy; more is said, where it is shown.
ALLOWED_LOSS = 0.01
LARGE_LOSS = 0.03  # is said even where so few pictures do not show it
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
DEPTHWISE_SHARE = 0.2  # of the bytes moved
SMALL_MS = 0.3
VECTOR = 8  # channels that one instruction takes, at least
SIBLINGS = 200
BRIDGES = ("export", "quantize")  # steps that write a file of the same network
NO_VERDICT = "; so this is no verdict on the change alone"
ENDS = 2  # one step to integers at the input, one back at the output, are needed


def findings_of_all(
    measured: Sequence[tuple[Case, Record, Pictures]], protocol: PairProtocol | None = None
) -> dict[Case, tuple[str, ...]]:
    """What each file has to say about the file that it was made from; nothing where there is none beside.

    All are judged together (`judged`). Cases that come to the same two files and runtimes share their pairs.

    Args:
        measured: what was measured, its record, and the pictures it was measured on.
        protocol: margin and number of pairs.
    """
    protocol = protocol or PairProtocol()
    found: dict[Case, tuple[str, ...]] = {case: () for case, _, _ in measured}
    held: dict[tuple[object, ...], Against] = {}
    keys = {}
    for case, _, pictures in measured:
        ancestor = ancestor_of(case.artifact)
        if ancestor is None:
            continue
        try:
            a, b = two_sides(case, ancestor)
            key = (a.artifact.path, a.runtime, a.settings, b.artifact.path, b.runtime, pictures.part)
            if key not in held:
                held[key] = hold(a, b, pictures, protocol)
            keys[case] = key
        except FeatherweightError as error:
            found[case] = (f"not held against {ancestor.name}, which it was made from: {error}",)
    together = dict(zip(held, judged(list(held.values()), protocol.margin), strict=True))
    for case, record, _ in measured:
        if case in keys:
            found[case] = tuple(_sentences(together[keys[case]], case, record))
    return found


def two_sides(case: Case, ancestor: Artifact) -> tuple[Case, Case]:
    """The file and its ancestor by one runtime: the case's own, else another one that runs both, else one each.

    Raises:
        RuntimeFailure: nothing runs the ancestor.
    """
    names = supporting(ancestor, "all")
    if case.runtime in names:
        return case, Case(ancestor, case.runtime, case.settings)
    # What was asked of one runtime means nothing to another one.
    settings = replace(case.settings, precision=None, optimization=None, provider=None)
    both = [name for name in supporting(case.artifact, "all") if name in names]
    if both:
        return Case(case.artifact, both[0], settings), Case(ancestor, both[0], settings)
    return case, Case(ancestor, names[0], settings)


def ancestor_of(artifact: Artifact) -> Artifact | None:
    """The file that this one was made from, among the artifacts beside it: the nearest by lineage.

    The same network in float32, or the network before it was pruned or otherwise changed: in the same precision and
    of the same format first. For a float32 file any float32 one goes before one in int8.
    """
    if artifact.foreign:
        return None
    found = [one for one in _beside(artifact) if _is_ancestor(one, artifact)]
    if not found:
        return None
    return max(
        found,
        key=lambda one: (
            artifact.precision == "int8" or one.precision == artifact.precision,
            len(_network(one)),
            one.precision == "float32" if _network(one) == _network(artifact) else one.precision == artifact.precision,
            one.format == artifact.format,
        ),
    )


def _beside(artifact: Artifact) -> Iterator[Artifact]:
    folders = sorted(path.parent for path in artifact.path.resolve().parent.glob(f"*/{MANIFEST}"))
    for folder in folders[:SIBLINGS]:
        if folder == artifact.path.resolve():
            continue
        try:
            yield read_artifact(folder)
        except FeatherweightError as error:
            logger.info("passed over when looking for what %s was made from: %s", artifact.name, error)


def _is_ancestor(one: Artifact, artifact: Artifact) -> bool:
    before, now = _network(one), _network(artifact)
    if one.task != artifact.task or one.classes != artifact.classes or now[: len(before)] != before or not before:
        return False
    if before == now:
        return one.precision == "float32" and artifact.precision == "int8"
    return True


def _network(artifact: Artifact) -> tuple[Step, ...]:
    """The steps that made the network, without those that made the file."""
    return tuple(step for step in artifact.steps if step.name not in BRIDGES)


# ----------------------------------------------------------------------------------------------- the sentences


def _sentences(against: Against, case: Case, record: Record) -> Iterator[str]:
    new, old = against.a, against.b
    by = "" if new.runtime == old.runtime == case.runtime else f" by {new.runtime}"
    by_old = "" if new.runtime == old.runtime else f" by {old.runtime}"
    word = {"faster": "is faster", "slower": "is slower"}.get(against.speed.word, "is not shown to be faster")
    shown = f"{against.speed.ratio}{_among(against)}" if against.speed.word != NOT_SHOWN else str(against.speed)
    sentence = f"{_made(against)}{by} {word} than {old.artifact.name}{by_old}, which it was made from: {shown}"
    if new.runtime != case.runtime:
        sentence += f"; held by {new.runtime}, as {case.runtime} does not run {old.artifact.name}"
    others = other_differences(against)
    if against.speed.word != "faster":
        sentence += f"; likely {_and([*others, *causes(against, record)])}"
    elif others:
        sentence += f"; part of it may be {_and(others)}"
    yield sentence + (NO_VERDICT if others else "")
    if against.accuracy is not None:
        yield from _loss(against, against.accuracy)


def _among(against: Against) -> str:
    count = against.speed.comparisons
    return f", Holm over {count} comparisons" if count > 1 else ""


def _made(against: Against) -> str:
    """What was done to the ancestor, as the subject of a sentence."""
    new, old = against.a.artifact, against.b.artifact
    if not _changed(against):
        return new.precision or "the file"
    if new.precision == old.precision:
        return "the changed network"
    return f"the changed network in {new.precision}, where the other is in {old.precision},"


def _changed(against: Against) -> bool:
    return _network(against.a.artifact) != _network(against.b.artifact)


def other_differences(against: Against) -> list[str]:
    """What differs beside precision and network, as causes; the runtime first: it can outweigh all the rest."""
    new, old = against.a, against.b
    found = []
    if new.runtime != old.runtime:
        found.append(f"the other runtime ({new.runtime} ran it and {old.runtime} the other; none here runs both)")
    if (new.artifact.height, new.artifact.width) != (old.artifact.height, old.artifact.width):
        found.append(f"the other size of pictures ({_size(new.artifact)} against {_size(old.artifact)} pixels)")
    if _data(new.artifact) != _data(old.artifact):
        found.append("the other data that it was trained on")
    return found


def _size(artifact: Artifact) -> str:
    return f"{artifact.height}×{artifact.width}"


def _data(artifact: Artifact) -> set[str]:
    """Fingerprints of what its network saw."""
    return {str(step.settings["data"]) for step in _network(artifact) if "data" in step.settings}


def _loss(against: Against, accuracy: Accuracies) -> Iterator[str]:
    lost = -accuracy.difference.value
    if lost <= (ALLOWED_LOSS if accuracy.shown else LARGE_LOSS):
        return
    others = other_differences(against)
    among = f"; part of it may be {_and(others)}{NO_VERDICT}" if others else ""
    if accuracy.shown:
        said = f"{_made(against)} loses more accuracy than the allowed {100 * ALLOWED_LOSS:g} points: {accuracy}"
        yield f"{said}{among}; {_advice(against)}"
    else:
        said = f"{_made(against)} is {100 * lost:.1f} points less accurate, not shown on so few pictures"
        yield f"{said}: {accuracy}{among}; measure it on more pictures"


def _advice(against: Against) -> str:
    found = []
    if _changed(against):
        found.append("fine-tune it longer, or keep more channels")
    if against.a.artifact.precision == "int8" != against.b.artifact.precision:
        found.append("calibrate on more or other pictures, or keep its most sensitive layers in float")
    return _and(found)


def causes(against: Against, record: Record) -> list[str]:
    """What most likely keeps the file from being faster, the most likely first; never nothing.

    What the record says of its own run counts only where the same runtime was held.
    """
    new, old = against.a.artifact, against.b.artifact
    same_runtime = record.runtime == against.a.runtime
    found: list[str] = []
    if old.precision == "int8" != new.precision:
        found.append(f"it computes in {new.precision} and {old.name} in int8")
    try:
        rows = analyze(new.model_path).rows
    except FeatherweightError as error:
        rows, unread = (), [f"unknown, as the file cannot be analyzed: {error}"]
    else:
        unread = []
    if new.precision == "int8":
        found += _int8_causes(rows, record if same_runtime else None)
    found += unread or _network_causes(rows, changed=_changed(against))
    p50_ms = record.latency_p50_ms
    if same_runtime and p50_ms is not None and p50_ms < SMALL_MS:
        found.append(f"so small a model ({p50_ms:.2g} ms) is mostly the runtime's own steps, not arithmetic")
    return found or ["none of the usual causes: see where the time goes by featherweight analyze --profile"]


def _int8_causes(rows: Sequence[Row], record: Record | None) -> Iterator[str]:
    """By the processor, by what the runtime says that it ran, and by what stands in the file."""
    if not set(this_device().instructions) & DOT_PRODUCTS:
        yield "this processor has no instruction for sums of 8-bit products (VNNI, dotprod, i8mm)"
    if record is not None and record.compute_precision is not None and "float" in record.compute_precision:
        yield (
            f"{record.runtime} runs part of it in float ({record.compute_precision}): its quantize and dequantize "
            "steps are not fused with what is between them"
        )
    convolutions = _convolutions(rows)
    floats = [row for row in convolutions if row.dtype.startswith(("float", "bfloat"))]
    if floats:
        yield f"{len(floats)} of its {len(convolutions)} convolutions are in float in the file"
    bridges = [row for row in rows if row.kind in ("quantize", "dequantize")]
    if len(bridges) > ENDS:
        yield (
            f"{len(bridges)} quantize and dequantize operators are left in the file, beside {len(convolutions)} "
            "convolutions"
        )


def _network_causes(rows: Sequence[Row], changed: bool) -> Iterator[str]:
    convolutions = _convolutions(rows)
    moved = sum(row.traffic_bytes for row in rows) or 1
    depthwise = sum(row.traffic_bytes for row in convolutions if row.kind == "depthwise") / moved
    if depthwise > DEPTHWISE_SHARE:
        yield f"{depthwise:.0%} of the bytes it moves are for depthwise convolutions, bound by memory, not arithmetic"
    if not changed:
        return
    odd = [row for row in convolutions if row.output[-1] % VECTOR]
    if odd:
        yield (
            f"{len(odd)} of its {len(convolutions)} convolutions have a number of filters that is no multiple of "
            f"{VECTOR}, so that part of each instruction is wasted"
        )


def _convolutions(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.kind in ("convolution", "depthwise")]


def _and(parts: Sequence[str]) -> str:
    return "; and ".join(parts)
