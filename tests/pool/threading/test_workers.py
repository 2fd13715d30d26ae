"""The threads that dispose of connections for callers who cannot wait."""

import contextlib
import logging
import threading
from typing import Any, Deque, List

import pytest
from generic_connection_pool.threading import workers as workers_module
from generic_connection_pool.threading.workers import Workers
from support.injection import FEW, Injection, everywhere
from support.threads import PATIENCE, Gate, raising, start, wait_for, wait_until

NAME = 'gcp-disposer'


def crew() -> List[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture(autouse=True)
def nobody_lingers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(workers_module, 'LINGER', 0.05)
    wait_until(lambda: not crew())
    yield
    wait_until(lambda: not crew(), 'the end of the threads')


def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', refuse)


def test_each_job_runs_at_once_on_a_thread_of_its_own() -> None:
    workers = Workers(NAME)
    together = threading.Barrier(21)
    for _ in range(20):
        workers.submit(lambda: together.wait(PATIENCE))
    together.wait(PATIENCE)


def test_the_threads_are_daemons_of_the_given_name() -> None:
    workers = Workers(NAME)
    told = []
    workers.submit(lambda: told.append((threading.current_thread().name, threading.current_thread().daemon)))
    wait_until(lambda: told == [(NAME, True)])


def test_a_thread_that_is_free_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, 'LINGER', PATIENCE)
    workers = Workers(NAME)
    idents = []
    for place in range(10):
        workers.submit(lambda: idents.append(threading.get_ident()))
        wait_until(lambda: len(idents) == place + 1 and len(workers._beds) == 1)
    assert len(set(idents)) == 1 and len(crew()) == 1
    workers._beds[0].wake()
    monkeypatch.setattr(workers_module, 'LINGER', 0.01)
    workers.submit(lambda: None)


def test_a_job_that_hangs_hinders_no_other() -> None:
    workers = Workers(NAME)
    gates = [Gate() for _ in range(5)]
    for gate in gates:
        workers.submit(gate)
        wait_for(gate.reached)
    for gate in gates:
        gate.open.set()


def test_jobs_beyond_the_largest_crew_wait_for_a_free_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 3)
    workers = Workers(NAME)
    gates = [Gate() for _ in range(3)]
    for gate in gates:
        workers.submit(gate)
        wait_for(gate.reached)
    done: List[int] = []
    for number in range(4):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert len(crew()) == 3 and done == []
    gates[1].open.set()
    wait_until(lambda: done == [0, 1, 2, 3])
    gates[0].open.set()
    gates[2].open.set()
    wait_until(lambda: not crew())
    assert not workers.crew


def test_a_thread_that_steps_aside_has_another_one_take_its_place_and_ends_after_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 1)
    workers = Workers(NAME)
    begin, done = Gate(), threading.Event()
    order: List[str] = []

    def wait_for_the_other() -> None:
        begin()
        workers.step_aside()
        workers.step_aside()  # once is enough
        wait_for(done)
        order.append('first')

    def other() -> None:
        order.append('other')
        done.set()

    workers.submit(wait_for_the_other)
    wait_for(begin.reached)
    workers.submit(other)
    assert order == []
    begin.open.set()
    wait_until(lambda: order == ['other', 'first'])
    wait_until(lambda: not crew())
    assert not workers.crew


def test_where_no_thread_can_be_started_who_steps_aside_does_what_is_left_to_be_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 1)
    workers = Workers(NAME)
    begin = Gate()
    order: List[str] = []

    def wait_for_the_other() -> None:
        begin()
        workers.step_aside()
        order.append('first')

    workers.submit(wait_for_the_other)
    wait_for(begin.reached)
    workers.submit(lambda: order.append('other'))
    no_threads(monkeypatch)
    begin.open.set()
    wait_until(lambda: order == ['other', 'first'])


def test_who_is_not_of_the_crew_does_not_step_aside() -> None:
    workers = Workers(NAME)
    gate = Gate()
    workers.submit(gate)
    wait_for(gate.reached)
    workers.step_aside()
    assert len(workers.crew) == len(crew()) == 1
    gate.open.set()


def test_idle_threads_end() -> None:
    workers = Workers(NAME)
    for _ in range(3):
        workers.submit(lambda: None)
    wait_until(lambda: not crew())
    assert not workers.crew and not workers._beds
    done = threading.Event()
    workers.submit(done.set)
    wait_for(done)


@pytest.mark.parametrize('exc', [ValueError, SystemExit, KeyboardInterrupt])
def test_a_job_that_fails_is_logged_and_its_thread_goes_on(exc: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise exc

    workers = Workers(NAME)
    workers.submit(fail)
    wait_until(lambda: [record.levelno for record in caplog.records] == [logging.ERROR])
    assert caplog.records[0].exc_info is not None and caplog.records[0].exc_info[0] is exc
    wait_until(lambda: len(workers._beds) == 1 or not crew())


def test_where_no_thread_can_be_started_the_job_runs_here_and_now(monkeypatch: pytest.MonkeyPatch) -> None:
    no_threads(monkeypatch)
    workers = Workers(NAME)
    order: List[str] = []

    def job() -> None:
        workers.submit(lambda: order.append('inner'))  # would block if a lock were held
        order.append('outer')

    def submit() -> None:
        workers.submit(job)
        order.append(threading.current_thread().name)

    thread = threading.current_thread().name
    submit()
    assert order == ['inner', 'outer', thread]
    assert not workers.crew


@pytest.mark.parametrize('interrupt', [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_of_a_job_that_runs_here_and_now_is_the_callers(
    monkeypatch: pytest.MonkeyPatch, interrupt: Any
) -> None:
    no_threads(monkeypatch)
    workers = Workers(NAME)
    with pytest.raises(interrupt):
        workers.submit(raising(interrupt()))
    workers.submit(raising(ValueError('logged')))


def test_a_job_that_runs_here_and_now_is_the_one_that_was_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that an interrupt left behind, or the submitted one is left behind in its turn."""
    no_threads(monkeypatch)
    workers = Workers(NAME)
    done: List[str] = []
    workers._jobs.append(lambda: done.append('left behind'))
    workers.submit(lambda: done.append('submitted'))
    assert done == ['submitted']


def test_an_interrupt_while_a_thread_is_started_does_not_make_the_crew_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 1)
    workers = Workers(NAME)
    done: List[int] = []
    with monkeypatch.context() as interrupted:
        interrupted.setattr(threading.Thread, 'start', raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            workers.submit(lambda: done.append(1))
    workers.submit(lambda: done.append(2))
    wait_until(lambda: done == [1, 2])


def test_an_interrupt_of_a_job_does_not_end_the_thread_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 1)
    workers = Workers(NAME)
    gate = Gate()
    done: List[str] = []
    workers.submit(gate)
    wait_for(gate.reached)
    workers.submit(raising(KeyboardInterrupt()))
    workers.submit(lambda: done.append('after'))
    gate.open.set()
    wait_until(lambda: done == ['after'])


def test_a_finalizer_may_submit_while_its_thread_submits() -> None:
    """HAZARD 37: at any bytecode."""

    def scenario(inject: Any) -> None:
        workers = Workers(NAME)
        done: List[str] = []
        with inject(lambda: workers.submit(lambda: done.append('finalizer'))) as injection:
            workers.submit(lambda: done.append('other'))
        wait_until(lambda: sorted(done) == ['finalizer', 'other'][not injection.happened :])

    future = start(everywhere, scenario, (workers_module.__file__, threading.__file__), 150)
    assert future.result(PATIENCE) > FEW


@pytest.mark.parametrize('threads', ['can be started', 'cannot be started'])
def test_an_interrupt_of_submit_leaves_the_workers_fit(monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    """HAZARD 10: at any bytecode; the job runs or not, later ones do, although there is one thread at the most."""
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def scenario(inject: Any) -> None:
        workers = Workers(NAME)
        done: List[str] = []
        with monkeypatch.context() as context:
            if threads == 'cannot be started':
                no_threads(context)
            with contextlib.suppress(KeyboardInterrupt), inject(interrupt):
                workers.submit(lambda: done.append('interrupted'))
        workers.submit(lambda: done.append('later'))
        wait_until(lambda: 'later' in done)
        assert done.count('interrupted') <= 1

    assert everywhere(scenario, (workers_module.__file__,)) > FEW


def test_a_job_that_comes_while_the_last_thread_leaves_is_run_by_it_if_there_can_be_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, 'LINGER', 0.0)
    no_threads(monkeypatch)
    workers = Workers(NAME)
    done: List[str] = []

    class Beds(Deque[Any]):
        def remove(self, bed: Any) -> None:
            super().remove(bed)
            workers._jobs.append(lambda: done.append('late'))

    workers._beds = Beds()
    workers._jobs.append(lambda: done.append('first'))
    workers._work()
    assert done == ['first', 'late'] and not workers._jobs and not workers._beds


def test_many_threads_may_submit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, 'LINGER', 0.0005)
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 4)
    workers = Workers(NAME)
    done: List[int] = []

    def work() -> None:
        for number in range(150):
            workers.submit(lambda: done.append(1))
            if number % 10 == 0:
                wait_until(lambda: not workers._jobs)

    for submitter in [start(work) for _ in range(3)]:
        submitter.result(PATIENCE)
    wait_until(lambda: len(done) == 450)
    wait_until(lambda: not crew())
    assert not workers.crew and not workers._beds and not workers._jobs


def test_the_injection_reports_where_it_happened() -> None:
    """The tests above would be void without it."""
    workers = Workers(NAME)
    done = threading.Event()
    with Injection(3, done.set, (workers_module.__file__,)) as injection:
        workers.submit(lambda: None)
    assert done.is_set() and injection.happened and injection.where.startswith('workers.py:')
