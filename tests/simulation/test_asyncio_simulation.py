"""The asyncio pool in an event loop of our own, by virtual time, with everything going wrong: see asyncio_world.py."""

import gc
from typing import Any, Iterator, List

import pytest
from generic_connection_pool import core_implementation
from generic_connection_pool.asyncio import ConnectionPool
from simulation import asyncio_world
from simulation.asyncio_planted import PLANTED, Defect
from simulation.choices import Choices
from simulation.recorded import recorded_runs
from simulation.shrinking import shrink

#: seeds that are run each time; fresh ones are for `make soak`, which still finds failures that are open
USUAL = 400
#: runs after which a planted defect has to be found
MOST_RUNS = 3000


@pytest.fixture(autouse=True)
def what_failed_runs_leave_behind_is_garbage() -> Iterator[None]:
    """Tasks that were never finished, whose coroutines the garbage collector closes: here, and not in another test."""
    yield
    gc.collect()


def traced(seed: int, script: Any = None) -> Choices:
    choices = Choices(seed, script)
    choices.trace = []
    asyncio_world.run(choices)
    return choices


def test_what_failed_once_does_not_fail_again() -> None:
    for run in recorded_runs('asyncio'):
        try:
            asyncio_world.run(run.choices())
        except AssertionError as exc:
            raise AssertionError(f'{exc}; {run}') from exc


def test_the_usual_seeds_find_nothing() -> None:
    for seed in range(USUAL):
        try:
            asyncio_world.run(Choices(seed))
        except Exception as exc:
            again = f'python tests/simulation/soak.py --flavour asyncio --core {core_implementation} --seed {seed}'
            raise AssertionError(f'{exc}; {again}') from exc


def test_a_seed_always_gives_the_same_run() -> None:
    for seed in range(25):
        one, other = traced(seed), traced(seed)
        assert one.trace and one.trace == other.trace and one.made == other.made


def test_the_decisions_of_a_run_give_the_same_run() -> None:
    for seed in range(25):
        run = traced(seed)
        again = traced(0, run.made)
        assert again.trace == run.trace and again.made == run.made


def test_runs_reach_what_they_are_for() -> None:
    total = Choices(0).tally
    for seed in range(100):
        choices = Choices(seed)
        asyncio_world.run(choices)
        total += choices.tally
    for what in (
        'cancelled', 'timed out', 'closed', 'pool closed', 'loops ended',
        'error', 'stubborn', 'hang', 'timeout', 'cancel', 'interrupt', 'exit', 'acquire', 'sizes', 'close',
    ):  # fmt: skip
        assert total[what] >= 3, total


@pytest.mark.filterwarnings('ignore')  # of what the broken pool leaves behind
@pytest.mark.parametrize('defect', PLANTED, ids=lambda defect: defect.plant.__name__)
def test_a_defect_is_found(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    defect.plant(monkeypatch)
    seen: List[str] = []
    for seed in range(MOST_RUNS):
        try:
            asyncio_world.run(Choices(seed))
        except Exception as exc:
            seen.append(str(exc))
            if seen[-1].startswith(defect.failures):
                break
    else:
        pytest.fail(f'not found, only {seen}')
    gc.collect()


@pytest.mark.filterwarnings('ignore')
def test_a_failure_is_replayed_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConnectionPool, '_settle_disposal', None)  # it cannot be awaited

    def fails(script: List[int]) -> bool:
        try:
            asyncio_world.run(Choices(0, script))
        except AssertionError as exc:
            return str(exc).startswith('TypeError')
        return False

    for seed in range(MOST_RUNS):
        choices = Choices(seed)
        try:
            asyncio_world.run(choices)
        except AssertionError:
            if len(choices.made) > 100:
                break
    assert fails(choices.made)
    shrunk = shrink(fails, choices.made, 10.0)
    assert fails(shrunk) and len(shrunk) < len(choices.made) - 20
    gc.collect()
