"""Raw samples → the numbers of a record: percentiles with what they need, the interval, what is odd about them.

Imports stats.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.stats import MIN_SAMPLES, median_interval, outliers, percentile, spread

SPREAD_LIMIT = 0.10
WINDOWS = 20
CLAIMED = (50, 90, 99)

Numbers = dict[str, Any]


def latency(infer_ns: Sequence[int]) -> tuple[Numbers, dict[str, str]]:
    """(fields of a record, field → why it is missing) of timed inferences."""
    fields: Numbers = {"latency_n": len(infer_ns)}
    missing = {}
    for percent in CLAIMED:
        name, least = f"latency_p{percent}_ms", MIN_SAMPLES[percent]
        fields[name] = percentile(infer_ns, percent) / 1e6 if len(infer_ns) >= least else None
        if fields[name] is None:
            missing[name] = f"{len(infer_ns)} runs; a p{percent} wants {least}"
    interval = median_interval(window_medians(infer_ns))
    fields["latency_p50_interval_ms"] = None
    if interval is not None:  # of windows' medians, whose median need not be that of all runs
        middle = percentile(infer_ns, 50)
        fields["latency_p50_interval_ms"] = (min(interval[0], middle) / 1e6, max(interval[1], middle) / 1e6)
    return fields, missing


def total(samples: Mapping[str, Sequence[int]], why_none: str = "no data was given") -> tuple[Numbers, dict[str, str]]:
    """The same of pre-processing, post-processing and all together, out of `Child.total`'s samples."""
    sources = {
        "preprocess_p50_ms": ("pre_ns", 50),
        "postprocess_p50_ms": ("post_ns", 50),
        "total_p50_ms": ("total_ns", 50),
        "total_p90_ms": ("total_ns", 90),
    }
    fields: Numbers = {}
    missing = {}
    for name, (source, percent) in sources.items():
        values, least = samples.get(source, ()), MIN_SAMPLES[percent]
        fields[name] = percentile(values, percent) / 1e6 if len(values) >= least else None
        if fields[name] is None:
            missing[name] = f"{len(values)} runs; a p{percent} wants {least}" if values else why_none
    return fields, missing


def window_medians(samples: Sequence[int]) -> list[float]:
    """Medians of consecutive windows: neighbouring runs are alike, and single ones make too narrow an interval."""
    size = max(1, len(samples) // WINDOWS)
    return [percentile(samples[i : i + size], 50) for i in range(0, len(samples) - size + 1, size)]


def unsteady(infer_ns: Sequence[int]) -> tuple[str, ...]:
    """Why these runs cannot be believed: the middle half spreads over more than 10 % of the median."""
    share = spread(infer_ns)
    if share <= SPREAD_LIMIT:
        return ()
    return (f"the middle half of the runs spreads over {share:.0%} of the median",)


def outlier_note(infer_ns: Sequence[int]) -> tuple[str, ...]:
    """A warning with the number of outliers: they are flagged, and counted like all others."""
    count = len(outliers(infer_ns))
    return (f"{count} of {len(infer_ns)} runs are outliers; they are kept",) if count else ()
