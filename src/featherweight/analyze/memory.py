"""Peak memory of activations: what is alive at once while the operators run one after another.

A tensor lives from the operator that makes it until its last reader is done; while an operator runs, its inputs and
its output are there together. Reshapes share memory with their input. Element-wise functions of one tensor write over
it where nobody else reads it later (but never over the model's input, which is the caller's): runtimes fuse them into
the convolution before or run them in place. Weights, scratch memory and a runtime's own padding are not counted.

The order matters where branches are: `best_order` searches all orders that the graph allows.
Liang et al. 2019 (arXiv 1911.00527) and Ahn et al. 2020 (arXiv 2003.02369) do the same for small devices.

Imports graph and operators only.
"""

from dataclasses import dataclass

from featherweight.analyze.graph import Graph
from featherweight.analyze.operators import Memory, memory_of

# Sets of finished operators that the search may look at before it gives up.
MAX_STATES = 10_000
# So many steps of one operator it may try in all of them, and of so many operators no order is looked for.
MAX_STEPS = 1_000_000
MAX_OPERATORS = 3_000


@dataclass(frozen=True)
class Peak:
    """The most activation memory, in the file's order and in the best one.

    `at` is the operator that runs when the file's order reaches its peak. `exact` says whether no order can do better
    than `best_bytes`; where it is False the search was given up: `best_bytes` is the best order that was found, and
    `bound_bytes` what any order needs at least.
    """

    file_bytes: int
    at: str
    best_bytes: int
    bound_bytes: int
    exact: bool
    only_order: bool = False  # each operator needs the one before: no other order exists


def peak_memory(graph: Graph, max_states: int = MAX_STATES) -> Peak:
    """The peak over the order in which the file lists its operators, and over the best order."""
    problem = _Problem(graph)
    if all(needs >> place & 1 for place, needs in enumerate(problem.needs[1:])):
        file_bytes, at = problem.peak_of_file_order()
        return Peak(file_bytes, at, file_bytes, file_bytes, True, True)
    file_bytes, at = problem.peak_of_file_order()
    bound = problem.lower_bound()
    if problem.count > MAX_OPERATORS:
        return Peak(file_bytes, at, file_bytes, bound, file_bytes == bound)
    best, exact = problem.best(file_bytes, bound, max_states)
    return Peak(file_bytes, at, best, bound if not exact else best, exact)


class _Problem:
    """Operators over buffers. A buffer is a tensor with all its views; `readers` are sets of operators as bits."""

    def __init__(self, graph: Graph):
        self.steps = 0
        self.names = [operator.name for operator in graph.operators]
        self.buffer: dict[str, int] = {}  # tensor → number of its buffer
        self.size: list[int] = []
        self.readers: list[int] = []
        self.kept: set[int] = set()  # outputs of the model stay to the end
        self.reads: list[tuple[int, ...]] = []
        self.makes: list[tuple[int, ...]] = []
        self.in_place: list[bool] = []
        self.needs: list[int] = []  # operators that must be done before
        for name in graph.inputs:
            self._new(name, graph)
        self.start = tuple(range(len(self.size)))
        maker: dict[str, int] = {}
        for place, operator in enumerate(graph.operators):
            reads = tuple(dict.fromkeys(self.buffer[name] for name in operator.inputs))
            for number in reads:
                self.readers[number] |= 1 << place
            memory = memory_of(operator.kind)
            if memory is Memory.VIEW and operator.inputs:
                self.buffer.update((name, self.buffer[operator.inputs[0]]) for name in operator.outputs)
                makes: tuple[int, ...] = ()
            else:
                makes = tuple(self._new(name, graph) for name in operator.outputs)
            producers = {maker[name] for name in operator.inputs if name in maker}
            self.needs.append(sum(1 << producer for producer in producers))
            maker.update((name, place) for name in operator.outputs)
            self.reads.append(reads)
            self.makes.append(makes)
            one = len(makes) == 1 and bool(reads) and self.size[makes[0]] <= self.size[reads[0]]
            self.in_place.append(memory is Memory.IN_PLACE and one)
        self.kept = {self.buffer[name] for name in graph.outputs if name in self.buffer}
        self.count = len(graph.operators)
        self.followers: list[list[int]] = [[] for _ in range(self.count)]
        for place, needs in enumerate(self.needs):
            for producer in _places(needs):
                self.followers[producer].append(place)
        self.first_ready = sum(1 << place for place, needs in enumerate(self.needs) if not needs)

    def _new(self, name: str, graph: Graph) -> int:
        self.buffer[name] = len(self.size)
        self.size.append(graph.tensors[name].bytes)
        self.readers.append(0)
        return self.buffer[name]

    def step(self, place: int, done: int, live: int) -> tuple[int, int]:
        """(memory while the operator runs, memory after it), from `live` bytes before it."""
        self.steps += 1
        after = done | 1 << place
        made = sum(self.size[number] for number in self.makes[place])
        ended = [number for number in self.reads[place] if not self.readers[number] & ~after]
        freed = sum(self.size[number] for number in ended if number not in self.kept)
        unread = sum(
            self.size[number] for number in self.makes[place] if not self.readers[number] and number not in self.kept
        )
        first = self.reads[place][0] if self.reads[place] else -1
        over = self.in_place[place] and first in ended and first not in self.kept and first >= len(self.start)
        return live + (0 if over else made), live + made - freed - unread

    def start_bytes(self) -> int:
        return sum(self.size[number] for number in self.start)

    def peak_of_file_order(self) -> tuple[int, str]:
        live, done, peak, at = self.start_bytes(), 0, self.start_bytes(), self.names[0] if self.names else ""
        for place in range(self.count):
            during, live = self.step(place, done, live)
            done |= 1 << place
            if during > peak:
                peak, at = during, self.names[place]
        return peak, at

    def lower_bound(self) -> int:
        """Each operator needs its own inputs and outputs at the least, in any order."""
        needed = [self.start_bytes()]
        for place in range(self.count):
            read = sum(self.size[number] for number in self.reads[place])
            made = 0 if self.in_place[place] else sum(self.size[number] for number in self.makes[place])
            needed.append(read + made)
        return max(needed)

    def best(self, file_bytes: int, bound: int, max_states: int) -> tuple[int, bool]:
        """(the best peak found, whether it is proved): tries limits from the least that is possible upwards.

        A limit that fails names the next one: the least memory by which any order went over it.
        """
        limit, states = bound, 0
        known = min(file_bytes, self._greedy(file_bytes))
        while limit < known:
            reached, next_limit, seen = self._within(limit, max_states - states)
            states += seen
            if reached:
                return limit, True
            if states >= max_states or self.steps >= MAX_STEPS or next_limit is None:
                return known, False
            limit = next_limit
        return known, True

    def _greedy(self, file_bytes: int) -> int:
        """The peak of the order that always runs what leaves the least memory in use: good, not always best.

        `file_bytes` where finding it takes too many steps.
        """
        done, live, ready, peak = 0, self.start_bytes(), self.first_ready, self.start_bytes()
        while ready:
            if self.steps >= MAX_STEPS:
                return file_bytes
            steps = [(*self.step(place, done, live), place) for place in _places(ready)]
            during, after, place = min(steps, key=lambda step: (step[1], step[0]))
            peak, live = max(peak, during), after
            ready = self._ready_after(place, done, ready)
            done |= 1 << place
        return peak

    def _within(self, limit: int, max_states: int) -> tuple[bool, int | None, int]:
        """(whether an order stays within the limit, else the next limit to try, how many states were looked at)."""
        everything = (1 << self.count) - 1
        seen: set[int] = set()
        stack = [(0, self.start_bytes(), self.first_ready)]
        over: int | None = None
        while stack and len(seen) < max_states and self.steps < MAX_STEPS:
            done, live, ready = self._safe(*stack.pop(), limit)
            if done == everything:
                return True, None, len(seen)
            if done in seen:
                continue
            seen.add(done)
            for place in _places(ready):
                during, after = self.step(place, done, live)
                if during <= limit:
                    stack.append((done | 1 << place, after, self._ready_after(place, done, ready)))
                else:
                    over = during if over is None else min(over, during)
        return False, None if stack else over, len(seen)

    def _safe(self, done: int, live: int, ready: int, limit: int) -> tuple[int, int, int]:
        """Run every operator that fits and leaves no more memory in use than before: no better order puts it off."""
        moved = True
        while moved:
            moved = False
            for place in _places(ready):
                during, after = self.step(place, done, live)
                if during <= limit and after <= live:
                    ready = self._ready_after(place, done, ready)
                    done, live, moved = done | 1 << place, after, True
                    break
        return done, live, ready

    def _ready_after(self, place: int, done: int, ready: int) -> int:
        """The operators whose producers are done, as bits, once `place` is done too."""
        done |= 1 << place
        freed = sum(1 << follower for follower in self.followers[place] if not self.needs[follower] & ~done)
        return ready & ~(1 << place) | freed


def _places(bits: int) -> list[int]:
    """The places of the bits that are set."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found
