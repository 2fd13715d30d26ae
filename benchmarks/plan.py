"""What is measured on which side, how often, and which lines of the report come of it."""

from contextlib import ExitStack
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from driver import Answer, Side, Task, alternate
from report import Line, faster, slower

#: with so many rounds a hot loop takes 20 to 80 ms
COUNTS = {'compiled': 200_000, 'pure': 10_000, '0.8.1': 1_000}
FLOOR_COUNT = 300_000
#: endpoints, with one idle connection each
ENDPOINTS = 100_000


class Effort(NamedTuple):
    #: of hot loops
    rounds: int
    #: of what takes seconds
    long_rounds: int
    #: how long threads and tasks share connections. A fair share of n differs by one from another, so that the fewest
    #: can be 0.95 of the most only if there are enough
    threads_seconds: float
    asyncio_seconds: float


FULL = Effort(15, 5, 2.0, 5.0)
QUICK = Effort(4, 1, 1.0, 4.0)


class Sides:
    """How to start the processes that measure."""

    def __init__(self, python: str, rival: Optional[str], floor: Optional[str]):
        """
        :param python: the interpreter that has the library
        :param rival: the interpreter that has release 0.8.1; ``None`` to do without
        :param floor: the directory that has the compiled floor; ``None`` to do without
        """
        self.floor = floor
        self._known: Dict[str, Tuple[Optional[str], str]] = {
            'compiled': (python, '0'), 'pure': (python, '1'), '0.8.1': (rival, '1')
        }  # fmt: skip

    def start(self, name: str, stack: ExitStack) -> Optional[Side]:
        """Start the process of a side, which ends with the stack; ``None`` if we do without."""
        python, core = self._known[name]
        return None if python is None else stack.enter_context(Side(name, python, core))

    def start_all(self, stack: ExitStack) -> Dict[str, Optional[Side]]:
        return {name: self.start(name, stack) for name in self._known}

    def describe(self) -> Dict[str, Any]:
        with ExitStack() as stack:
            return {name: side.about for name, side in self.start_all(stack).items() if side is not None}


def hot_threads(sides: Sides, effort: Effort) -> Iterator[Line]:
    """Threads, one idle connection, no hooks."""
    with ExitStack() as stack:
        started = sides.start_all(stack)
        pools = {
            name: Task(side, 'hot_threads', 'measure_pool', COUNTS[name]) for name, side in started.items()
        }
        floor = Task(
            None if sides.floor is None else started['compiled'],
            'hot_threads', 'measure_floor', sides.floor, FLOOR_COUNT,
        )  # fmt: skip
        alternate(effort.rounds, *pools.values(), floor)
    compiled, pure, rival = pools.values()
    yield slower('threads: with pool.connection()', 2.0, compiled.best('with'), 'the floor', floor.best('with'))
    yield faster('threads: with pool.connection()', 50, compiled.best('with'), '0.8.1', rival.best('with'))
    yield faster('threads: acquire + release', 80, compiled.best('acquire'), '0.8.1', rival.best('acquire'))
    yield faster('threads, pure: with pool.connection()', 2, pure.best('with'), '0.8.1', rival.best('with'))


def hot_asyncio(sides: Sides, effort: Effort) -> Iterator[Line]:
    """asyncio, one idle connection, no hooks."""
    with ExitStack() as stack:
        started = sides.start_all(stack)
        pools = {
            name: Task(side, 'hot_asyncio', 'measure_pool', COUNTS[name]) for name, side in started.items()
        }
        floor = Task(started['compiled'], 'hot_asyncio', 'measure_floor', COUNTS['compiled'])
        alternate(effort.rounds, *pools.values(), floor)
    compiled, pure, rival = pools.values()
    what = 'asyncio: async with pool.connection()'
    yield slower(what, 1.2, compiled.best('with'), 'empty coroutines', floor.best('with'))
    yield faster(what, 200, compiled.best('with'), '0.8.1', rival.best('with'))
    yield faster('asyncio, pure: async with pool.connection()', 5, pure.best('with'), '0.8.1', rival.best('with'))


def sharing_threads(sides: Sides, effort: Effort) -> Iterator[Line]:
    """16 threads share 4 connections."""
    yield from _sharing(
        sides, '16 threads on 4 connections', 'sharing_threads', effort.threads_seconds, effort.long_rounds, 0.95, 0.95
    )


def sharing_asyncio(sides: Sides, effort: Effort) -> Iterator[Line]:
    """1,000 tasks share 10 connections."""
    yield from _sharing(
        sides, '1,000 tasks on 10 connections', 'sharing_asyncio', effort.asyncio_seconds, effort.long_rounds, 0.9, 0.8
    )


def _sharing(
    sides: Sides, what: str, module: str, seconds: float, rounds: int, least_share: float, least_rate: float
) -> Iterator[Line]:
    with ExitStack() as stack:
        side = sides.start('compiled', stack)
        pool = Task(side, module, 'measure_pool', seconds)
        semaphore = Task(side, module, 'measure_semaphore', seconds)
        alternate(rounds, pool, semaphore)
    # fairness of the worst round, throughput of the best ones: nothing that disturbs the machine adds to it
    worst = min(pool.answers, key=lambda answer: answer['fewest'] / answer['most'])
    fewest, most = worst['fewest'], worst['most']
    yield Line(f'{what}: fewest', fewest, 'the most', most, 'acquires', fewest / most, '≥', least_share)
    mine, its = (max(answer['rate'] for answer in task.answers) for task in (pool, semaphore))
    yield Line(f'{what}: throughput', mine, 'a semaphore', its, '/s', mine / its, '≥', least_rate)


def many_endpoints(sides: Sides, effort: Effort) -> Iterator[Line]:
    """100,000 endpoints with one idle connection each."""
    many: List[Answer] = []
    one: List[Answer] = []
    for _ in range(min(effort.long_rounds, 3)):
        with ExitStack() as stack:  # memory is only measured in a fresh process
            side = sides.start('compiled', stack)
            assert side is not None
            many.append(side.ask('many_endpoints', 'measure', ENDPOINTS))
            one.append(side.ask('many_endpoints', 'measure_one', ENDPOINTS))
    sizes = [answer['bytes'] for answer in many]
    random = min(answer['random'] for answer in many)
    bare = min(answer['bare'] for answer in many)
    alone = min(answer['random'] for answer in one)
    yield Line('100,000 endpoints: memory of one', None if None in sizes else max(sizes), unit='B', bound=600)
    yield slower('100,000 endpoints: acquire + release', 3.0, random, 'one endpoint', alone)
    yield slower('100,000 endpoints: acquire + release', None, random, 'a dict of lists', bare)


PLAN = {
    'hot-threads': hot_threads,
    'hot-asyncio': hot_asyncio,
    'sharing-threads': sharing_threads,
    'sharing-asyncio': sharing_asyncio,
    'many-endpoints': many_endpoints,
}
