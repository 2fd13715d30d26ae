"""All interleavings of the programs of a case."""

from typing import Any, Dict, Hashable, List, NamedTuple, Sequence, Set

from exhaustive.account import Account, Limits
from exhaustive.programs import Program, Thread
from exhaustive.snapshot import inside, outside
from support.core_twins import PYTHON, Twin

__all__ = ('Case', 'Found', 'Run', 'each_interleaving', 'each_state')


class Case(NamedTuple):
    """Programs that run side by side.

    :param name: what it is about
    :param limits: of the core
    :param programs: one for each thread
    :param idle: endpoints of the connections that are idle at the start
    :param lead_in: the first steps: whose turn it is. All interleavings of what comes after them are tried
    :param alike: threads with the same program, which nothing tells apart: they begin in this order only
    :param bypass: hand-offs to others that an endpoint blocked by the total limit alone lets pass at the most
    """

    name: str
    limits: Limits
    programs: Sequence[Program]
    idle: Sequence[str] = ()
    lead_in: Sequence[int] = ()
    alike: Sequence[int] = ()
    bypass: int = 16


class Found(NamedTuple):
    """How much there was."""

    interleavings: int
    states: int


class Run:
    """One run of a case.

    :param twin: the implementation
    :param case: the case
    """

    def __init__(self, twin: Twin, case: Case):
        self.case = case
        self.account = Account(twin, case.limits)
        self._stock()
        self.threads = [Thread(self.account, 'ABC'[i], program) for i, program in enumerate(case.programs)]
        for thread in self.threads:
            thread.advance()  # to before its first operation
        for turn in case.lead_in:
            assert turn in self.enabled(), f'{self.threads} in the lead-in'
            self.step(turn)
            self.check()

    def _stock(self) -> None:
        stock = [Thread(self.account, f'idle{i}-', stocking(key)) for i, key in enumerate(self.case.idle)]
        for _ in range(5):  # all have their connections before one of them gives its own back
            for thread in stock:
                thread.advance()
        assert all(thread.done for thread in stock)
        self.account.parties.clear()

    def enabled(self) -> List[int]:
        """Whose turn it may be."""
        turns = [
            turn
            for turn, thread in enumerate(self.threads)
            if not thread.done and (thread.ready is None or thread.ready())
        ]
        fresh = [turn for turn in self.case.alike if not self.threads[turn].begun]
        return [turn for turn in turns if turn not in fresh[1:]]

    def step(self, turn: int) -> None:
        thread = self.threads[turn]
        thread.begun = True
        thread.advance()

    def check(self) -> None:
        self.account.check()
        assert self.account.most_bypassed <= self.case.bypass, f'passed over {self.account.most_bypassed} times'

    def step_and_check(self, turns: List[int]) -> None:
        """Take the last of these turns."""
        try:
            self.step(turns[-1])
            self.check()
        except AssertionError as exc:
            raise AssertionError(self.tell(turns, exc)) from exc

    def check_end(self, turns: List[int]) -> None:
        try:
            waiting = [thread for thread in self.threads if not thread.done]
            assert not waiting, f'deadlock of {waiting}'
            self.account.check_end()
        except AssertionError as exc:
            raise AssertionError(self.tell(turns, exc)) from exc

    def tell(self, turns: List[int], exc: AssertionError) -> str:
        """Which interleaving failed."""
        return f'{self.case.name}: {exc}; the turns were {" ".join(self.threads[turn].name for turn in turns)}'


def stocking(key: str) -> Program:
    def program(thread: Thread) -> Any:
        assert (yield from thread.request(key))
        yield from thread.release()

    return program


def each_interleaving(twin: Twin, case: Case) -> Found:
    """Run all of them, one by one. What was checked in a former run with the same beginning is not checked again."""
    seen: Set[Hashable] = set()
    interleavings = 0
    turns: List[int] = []
    others: List[List[int]] = []  # at each step, whose turn it could be as well, and has not been yet
    while True:
        run = started(twin, case, turns)
        seen.add(outside(run))
        while True:
            enabled = run.enabled()
            if not enabled:
                break
            turns.append(enabled[0])
            others.append(enabled[1:])
            run.step_and_check(turns)
            seen.add(outside(run))
        run.check_end(turns)
        interleavings += 1
        while others and not others[-1]:
            others.pop()
            turns.pop()
        if not others:
            return Found(interleavings, len(seen))
        turns[-1] = others[-1].pop(0)


def each_state(twin: Twin, case: Case) -> Found:
    """Go through all states. A state that was reached before is not gone through again: all that may follow is known.

    Whether a state is the same, what is inside the pure core decides. The compiled one cannot be looked into; it goes
    along, and at each step everybody must see the same of both.
    """
    ways: Dict[Hashable, int] = {}  # from each state: how many interleavings there are to the end
    seen: Set[Hashable] = set()

    def count(runs: List[Run], turns: List[int]) -> int:
        seen.add(outside(runs[0]))
        state = inside(runs[-1])
        if state not in ways:
            enabled = runs[0].enabled()
            if not enabled:
                for run in runs:
                    run.check_end(turns)
            number = 0 if enabled else 1
            for turn in enabled:
                way = [*turns, turn]
                if turn == enabled[0]:  # the other turns need runs of their own
                    for run in runs:
                        run.step_and_check(way)
                else:
                    runs = [started(one, case, way) for one in twins]
                sight = [outside(run) for run in runs]
                assert sight[0] == sight[-1], f'{case.name}: the twins differ after the turns {way}'
                number += count(runs, way)
            ways[state] = number
        return ways[state]

    twins = [twin] if twin is PYTHON else [twin, PYTHON]
    return Found(count([started(one, case, []) for one in twins], []), len(seen))


def started(twin: Twin, case: Case, turns: List[int]) -> Run:
    """A run that has come so far. Only the last step is checked: the others were, in a former run."""
    run = Run(twin, case)
    for turn in turns[:-1]:
        run.step(turn)
    if turns:
        run.step_and_check(turns)
    return run
