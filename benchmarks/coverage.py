"""Does the interval of A against B cover as often as it says, with its own stopping rule, and what does it find?

Simulated sessions, as nobody knows the true ratio of real ones: log-ratios of pairs are drawn with a known median,
pairs are added as `more_wanted` says, and the session's interval and verdict are held against the truth. Wanted: the
interval covers in 93 to 97 % of the sessions for every shape of noise, and no row is shown to lie outside.

Then the rounds inside a pair: blocks of runs with skewed noise of equal sides, an even and an odd number of rounds and
of runs, are made log-ratios as real ones are. Wanted: the log-ratios lean to neither side, and neither do the false
verdicts of a margin of 0.

    python benchmarks/coverage.py                     # 500 sessions a row, as the claim is stated
    python benchmarks/coverage.py --sessions 20000    # the true coverage, ± 0.3 %
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from featherweight.measure.pairs import pair_log_ratio
from featherweight.stats import NOT_SHOWN, PAIRS_CAP, PAIRS_START, PAIRS_STEP, more_wanted, verdict, wilson

Noise = Callable[[np.random.Generator, float], NDArray[np.float64]]  # CAP log-ratios of median 0
LOW, HIGH = 0.93, 0.97
SPREADS = (0.01, 0.03, 0.07, 0.2)  # from quiet to hopeless; at 0.07 most sessions stop just before the cap
SLOW = math.log(1.4)  # what an episode costs the side that it hits
ROUNDS = ((5, 3), (6, 3), (6, 4), (14, 10), (15, 10))  # (rounds, runs a block): as slow and fast models take
BLOCK_NOISE, RUN_NOISE = 0.05, 0.03  # means of what a block, and a run in it, takes longer than the least time
BIAS_LIMIT = 4.0  # standard errors; chance alone goes beyond in one of 16,000 rows


def normal(rng: np.random.Generator, sd: float) -> NDArray[np.float64]:
    return rng.normal(0, sd, PAIRS_CAP)


def heavy_tailed(rng: np.random.Generator, sd: float) -> NDArray[np.float64]:
    """Student's t with 2 degrees of freedom: it has no variance."""
    return sd * rng.standard_t(2, PAIRS_CAP)


def bimodal(rng: np.random.Generator, sd: float) -> NDArray[np.float64]:
    """A quarter of the pairs lies in slow episodes of 4 pairs on average; within a pair, chance says who is hit."""
    slow = np.zeros(PAIRS_CAP, bool)
    slow[0] = rng.random() < 0.25
    for pair in range(1, PAIRS_CAP):
        slow[pair] = rng.random() < (0.75 if slow[pair - 1] else 0.25 / 3)
    return rng.normal(0, sd, PAIRS_CAP) + slow * rng.choice((-1, 1), PAIRS_CAP) * SLOW


def skewed(rng: np.random.Generator, sd: float) -> NDArray[np.float64]:
    """Exponential, as where A alone is disturbed; its median is ln 2."""
    return sd * (rng.exponential(1, PAIRS_CAP) - math.log(2))


SHAPES: dict[str, Noise] = {"normal": normal, "heavy tailed": heavy_tailed, "bimodal": bimodal, "skewed": skewed}


def session(log_ratios: NDArray[np.float64]) -> list[float]:
    """The pairs that our stopping rule takes of them."""
    taken = PAIRS_START
    while more_wanted(log_ratios[:taken].tolist()):
        taken += PAIRS_STEP
    return log_ratios[:taken].tolist()


@dataclass(frozen=True)
class Tally:
    """Sessions of one kind, and how many of them did what."""

    sessions: int = 0
    covered: int = 0
    pairs: int = 0
    false: int = 0  # a difference was claimed where there is none
    found: int = 0  # 10 % slower was called slower
    wrong: int = 0  # and here faster

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval of the coverage, as a share."""
        return wilson(self.covered, self.sessions)

    def line(self) -> str:
        """The row of the table, without its name."""
        low, high = self.bounds
        return (
            f"{100 * self.covered / self.sessions:5.1f} % ({100 * low:.1f}–{100 * high:.1f})  "
            f"{self.pairs / self.sessions:5.1f}  {self.false:6d}  {self.found:6d}  {self.wrong:5d}"
        )


def tally(noise: Noise, sd: float, rng: np.random.Generator) -> Tally:
    """One session of equal sides, and one where A takes 10 % longer."""
    same = verdict(session(noise(rng, sd)))
    slower = verdict(session(noise(rng, sd) + math.log(1.1)))
    assert same.ratio is not None
    return Tally(
        sessions=1,
        covered=same.ratio.low <= 1 <= same.ratio.high,
        pairs=same.ratio.n,
        false=same.word != NOT_SHOWN,
        found=slower.word == "slower",
        wrong=slower.word == "faster",
    )


@dataclass(frozen=True)
class Lean:
    """Sessions of equal sides, from the rounds on: to which side they lean."""

    mean: float  # of all pairs' log-ratios
    error: float  # its standard error
    faster: int  # false verdicts, of a margin of 0
    slower: int

    @property
    def balanced(self) -> bool:
        """Whether mean and verdicts are as near to the middle as chance has it."""
        verdicts = abs(self.faster - self.slower) / math.sqrt(max(1, self.faster + self.slower))
        return abs(self.mean) <= BIAS_LIMIT * self.error and verdicts <= BIAS_LIMIT


def lean(rounds: int, runs: int, sessions: int, rng: np.random.Generator) -> Lean:
    found = [[a_pair(rounds, runs, rng) for _ in range(PAIRS_START)] for _ in range(sessions)]
    words = [verdict(log_ratios, margin=0.0).word for log_ratios in found]
    every = np.array(found)
    error = float(every.std() / math.sqrt(every.size))
    return Lean(float(every.mean()), error, words.count("faster"), words.count("slower"))


def a_pair(rounds: int, runs: int, rng: np.random.Generator) -> float:
    """The log-ratio of a pair of equal sides, whose blocks and runs take longer by skewed noise."""
    blocks = 1 + rng.exponential(BLOCK_NOISE, (2, rounds, 1)) + rng.exponential(RUN_NOISE, (2, rounds, runs))
    a, b = blocks.tolist()
    return pair_log_ratio(a, b)


def show_rounds(sessions: int, rng: np.random.Generator) -> bool:
    """Print the table of rounds; returns whether all of it is balanced."""
    print(f"rounds  runs a block  mean log-ratio (standard error)  A/A faster  A/A slower   of {sessions}")
    found = [(rounds, runs, lean(rounds, runs, sessions, rng)) for rounds, runs in ROUNDS]
    for rounds, runs, row in found:
        print(f"{rounds:6d}  {runs:12d}  {row.mean:+14.6f} ({row.error:.6f})        {row.faster:10d}  {row.slower:10d}")
    balanced = all(row.balanced for _, _, row in found)
    print("Balanced.\n" if balanced else "Not balanced: equal sides lean to one.\n", flush=True)
    return balanced


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=500, help="sessions a row; 500")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    print(f"{args.sessions} sessions a row, seed {args.seed}; pairs {PAIRS_START} to {PAIRS_CAP} by {PAIRS_STEP}\n")
    balanced = show_rounds(args.sessions, np.random.default_rng(args.seed))
    print("noise           sd  95 % interval covers   pairs   A/A ≠  +10 % ≠  wrong")
    as_wanted = True
    for name, noise in SHAPES.items():
        rows = {sd: sum((tally(noise, sd, rng) for _ in range(args.sessions)), Tally()) for sd in SPREADS}
        for sd, row in rows.items():
            print(f"{name:<13} {sd:4.2f}  {row.line()}")
        whole = sum(rows.values(), Tally())
        print(f"{name:<13}  all  {whole.line()}\n", flush=True)
        as_wanted = as_wanted and LOW <= whole.covered / whole.sessions <= HIGH
        as_wanted = as_wanted and all(row.bounds[0] <= HIGH and row.bounds[1] >= LOW for row in rows.values())
    print(
        "sd: of the noise without its episodes. A/A ≠: a difference was claimed where there is none. +10 % ≠: a side\n"
        "that takes 10 % longer was called slower. "
        + ("As wanted." if as_wanted else "Not as wanted: a row is shown to lie outside 93–97 %.")
    )
    return 0 if as_wanted and balanced else 1


if __name__ == "__main__":
    raise SystemExit(main())
