"""Defects to be put into the library, each of which a simulation has to find."""

import contextlib
import importlib
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import pytest
from generic_connection_pool import core_implementation
from generic_connection_pool.threading import collector, pool, workers

__all__ = ('Defect', 'PLANTED', 'a_closed_pool_goes_on_serving')


class Defect(NamedTuple):
    """A defect."""

    plant: 'Plant'
    #: the failures by which it may show
    failures: Tuple[str, ...]
    #: properties of worlds in which it soon does
    tilt: Dict[str, Any]


Plant = Callable[[pytest.MonkeyPatch], None]


def pure(module: str) -> Any:
    """A module of the pure core."""
    return importlib.import_module(f'generic_connection_pool._pycore.{module}')


#: where hooks often fail
TROUBLE = {'by_line': False, 'calm': 8}
#: where the collector has much to do
COLLECTOR = {'background_collector': True, 'by_line': False, 'max_lifetime': 2.0, 'idle_timeout': 0.5, 'min_idle': 0}

# -- in the core


def a_wake_up_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    Core = pure('core').Core
    conclude = Core._conclude
    monkeypatch.setattr(Core, '_conclude', lambda self, woken: conclude(self, dict(list(woken.items())[1:])))


def a_failed_create_keeps_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure('core').Core, 'fail', lambda self, ticket: setattr(ticket, 'state', 0))


def a_connection_is_disposed_of_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ThreadPool = pure('thread_pool').ThreadPool
    dispose = ThreadPool._dispose

    def twice(self: Any, record: Any, timeout: Any, ticket: Any) -> Any:
        if not record.claimed:
            self._manager.dispose(record.key, record.conn, timeout=timeout or 0.0)
        return dispose(self, record, timeout, ticket)

    monkeypatch.setattr(ThreadPool, '_dispose', twice)


def newcomers_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    WaitQueue = pure('waiters').WaitQueue
    push = WaitQueue.push

    def push_in_front(self: Any, ticket: Any) -> None:
        ticket.order = -ticket.order
        push(self, ticket)

    monkeypatch.setattr(WaitQueue, 'push', push_in_front)


def who_fails_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure('thread_pool').ThreadPool, '_abandon', lambda self, ticket: self._core.withdraw(ticket))


def closing_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure('core').Core, 'close', lambda self: setattr(self, 'closed', True))


def the_collector_sets_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    Core = pure('core').Core
    set_alarm = Core.set_alarm
    monkeypatch.setattr(Core, 'set_alarm', lambda self, ticket: set_alarm(self, None))


def the_lock_locks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulation.stage import StagedLock

    def enter(self: Any) -> None:
        self.depth += 1

    monkeypatch.setattr(StagedLock, '__enter__', enter)


# -- in the facade


def an_interrupted_hook_leaves_the_connection_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.ConnectionPool, '_guarded', lambda self, ticket, hook, *args: hook(*args))


def a_wait_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, 'remaining', lambda deadline: None)


def a_closed_pool_goes_on_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    def announce(self: Any, ticket: Any, endpoint: Any) -> None:
        if not self._plain_acquire:
            self._guarded(ticket, self._connection_manager.on_acquire, endpoint, ticket.record.conn)

    monkeypatch.setattr(pool.ConnectionPool, '_announce', announce)


def closing_leaves_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.ConnectionPool, '_dispose_lent', lambda self, timeout: False)


def a_worker_that_leaves_is_still_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(self: Any) -> None:
        bed = workers.Ticket(0)
        while True:
            while self._has_run_one():
                pass
            self._beds.append(bed)
            if not bed.wait(workers.LINGER):
                return

    monkeypatch.setattr(workers.Workers, '_work', work)


def the_collector_dies_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(pool_ref: Any, ticket: Any) -> None:
        delay = 0.0
        while True:
            ticket.wait(delay)
            owner = pool_ref()
            if owner is None or owner.closed:
                return
            try:
                delay = owner._dispose_all_due(ticket)
            except BaseException:
                return

    monkeypatch.setattr(collector, '_collect', collect)


def an_interrupt_in_a_job_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = workers.Workers._run

    def swallow(self: Any, job: Any) -> None:
        with contextlib.suppress(BaseException):
            run(self, job)

    monkeypatch.setattr(workers.Workers, '_run', swallow)


CORE = [
    Defect(a_wake_up_is_swallowed, ('asleep', 'deadlock'), {}),
    Defect(a_failed_create_keeps_its_slot, ('waits in vain', 'deadlock'), {}),
    Defect(a_connection_is_disposed_of_twice, ('disposed of twice',), {}),
    Defect(newcomers_go_first, ('overtaken',), {}),
    Defect(who_fails_gives_nothing_back, ('waits in vain', 'deadlock'), {}),
    Defect(closing_tells_nobody, ('deadlock', 'endpoint'), {}),
    Defect(the_collector_sets_no_alarm, ('overdue',), {**COLLECTOR, 'haste': 0}),
    Defect(the_lock_locks_nothing, ('unexpected', 'not refused'), {'by_line': True}),
]
FACADE = [
    Defect(an_interrupted_hook_leaves_the_connection_fit, ('handed out though unfit',), TROUBLE),
    Defect(a_wait_has_no_bound, ('no bound',), {}),
    Defect(a_closed_pool_goes_on_serving, ('handed out by a closed pool',), TROUBLE),
    Defect(closing_leaves_what_is_in_use, ('left open by a forced close',), {'by_line': False}),
    Defect(a_worker_that_leaves_is_still_counted_on, ('deadlock',), {'endpoints': 3, 'interrupts': False}),
    Defect(the_collector_dies_of_an_error, ('the collector is gone',), {**COLLECTOR, 'calm': 2, 'haste': 4}),
    Defect(an_interrupt_in_a_job_is_swallowed, ('swallowed',), {**TROUBLE, 'threads_fail': True}),
]

#: those that can be put into the core in use, and into the facade
PLANTED: List[Defect] = [*(CORE if core_implementation == 'python' else ()), *FACADE]
