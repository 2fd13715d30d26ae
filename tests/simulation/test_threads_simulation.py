"""The threads pool on a stage of our own, where one decision after the other says who goes on: see stage.py."""

from typing import Any, Iterator, List

import pytest
from generic_connection_pool import core_implementation
from simulation import threads_world
from simulation.choices import Choices
from simulation.crew import dismiss
from simulation.planted import PLANTED, Defect, a_closed_pool_goes_on_serving
from simulation.recorded import Run, recorded_runs
from simulation.shrinking import shrink

#: seeds that are run each time; fresh ones are for `make soak`, which still finds failures that are open
USUAL = 200
#: runs after which a planted defect has to be found
MOST_RUNS = 3000


@pytest.fixture(autouse=True, scope='module')
def no_threads_are_left() -> Iterator[None]:
    yield
    dismiss()


def traced(seed: int, script: Any = None, tilt: Any = None) -> Choices:
    choices = Choices(seed, script)
    choices.trace = []
    threads_world.run(choices, tilt)
    return choices


@pytest.mark.parametrize('run', recorded_runs('threads'), ids=lambda run: run.why[:40])
def test_what_failed_once_does_not_fail_again(run: Run) -> None:
    threads_world.run(run.choices())


def test_the_usual_seeds_find_nothing() -> None:
    for seed in range(USUAL):
        try:
            threads_world.run(Choices(seed))
        except Exception as exc:
            again = f'python tests/simulation/soak.py --flavour threads --core {core_implementation} --seed {seed}'
            raise AssertionError(f'{exc}; {again}') from exc


@pytest.mark.parametrize('tilt', [{}, {'by_line': True}], ids=['by operation', 'by line'])
def test_a_seed_always_gives_the_same_run(tilt: Any) -> None:
    for seed in range(5):
        one, other = traced(seed, tilt=tilt), traced(seed, tilt=tilt)
        assert one.trace and one.trace == other.trace and one.made == other.made


def test_the_decisions_of_a_run_give_the_same_run() -> None:
    for seed in range(20):
        run = traced(seed)
        again = traced(0, run.made)
        assert again.trace == run.trace and again.made == run.made


def test_decisions_to_be_made_again_are_reduced_to_what_is_possible_and_then_are_none() -> None:
    choices = Choices(0, [5, 1, 7])
    made = [choices.below(3), choices.below(1), choices.pick('ab'), choices.below(4), choices.below(9)]
    assert made == [2, 0, 'b', 3, 0]
    assert choices.made == [2, 1, 3, 0]


def test_runs_reach_what_they_are_for() -> None:
    total = Choices(0).tally
    for seed in range(120):
        choices = Choices(seed)
        threads_world.run(choices, {'by_line': False})
        total += choices.tally
    for what in ('loans', 'waits', 'timeouts', 'closes', 'deaths', 'hangs', 'interrupts', 'HookError', 'SystemExit'):
        assert total[what] >= 5, total


@pytest.mark.parametrize('defect', PLANTED, ids=lambda defect: defect.plant.__name__)
def test_a_defect_is_found(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    defect.plant(monkeypatch)
    seen: List[str] = []
    for seed in range(MOST_RUNS):
        try:
            threads_world.run(Choices(seed), defect.tilt)
        except Exception as exc:
            seen.append(str(exc))
            if seen[-1].startswith(defect.failures):
                break
    else:
        pytest.fail(f'not found, only {seen}')


def test_a_failure_is_replayed_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    defect = next(defect for defect in PLANTED if defect.plant is a_closed_pool_goes_on_serving)
    defect.plant(monkeypatch)

    def failure(choices: Choices) -> str:
        try:
            threads_world.run(choices, defect.tilt)
        except AssertionError as exc:
            return str(exc).partition(':')[0]
        return ''

    runs = (Choices(seed) for seed in range(MOST_RUNS))
    failed = next(choices for choices in runs if failure(choices) in defect.failures and len(choices.made) > 60)
    assert failure(Choices(0, failed.made)) in defect.failures
    shrunk = shrink(lambda script: failure(Choices(0, script)) in defect.failures, failed.made, 10.0)
    assert failure(Choices(0, shrunk)) in defect.failures
    assert len(shrunk) < len(failed.made) and sum(shrunk) < sum(failed.made) / 2
