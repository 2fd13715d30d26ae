"""The classes of the core, used as they must not be: never a crash, and no state of another core is touched."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from support.core_twins import CYTHON, Twin, all_twins, compiled_core_is_missing

SCRIPT = pathlib.Path(__file__).with_name('misuse.py')


@pytest.fixture(params=all_twins())
def twin(request: pytest.FixtureRequest) -> Twin:
    chosen: Twin = request.param
    return chosen


@pytest.mark.parametrize('seed', [1, 2, 3])
@pytest.mark.skipif(compiled_core_is_missing(), reason='only compiled code can crash the interpreter')
def test_no_misuse_of_the_classes_of_the_compiled_core_crashes_the_interpreter(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-X', 'faulthandler', str(SCRIPT), CYTHON.name, str(seed), '2500'],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert done.returncode == 0, '\n'.join(done.stderr.splitlines()[-40:])
    calls, answered = map(int, done.stdout.split())
    assert calls == 2500 and answered > 500  # it did something


def make_core(twin: Twin) -> Any:
    return twin.get('core', 'Core')(1, 2, 2, 60.0, 3600.0)


def fill(twin: Twin, core: Any, key: str = 'a') -> Any:
    """A ticket that holds a new connection."""
    ticket = twin.get('waiters', 'Ticket')()
    core.request(ticket, key, 0.0)
    assert core.fulfil(ticket, object(), 0.0)
    return ticket


def test_a_connection_of_another_core_is_refused_and_nothing_changes(twin: Twin) -> None:
    one, other = make_core(twin), make_core(twin)
    record = fill(twin, one).record
    assert not other.take_back(record, record.uses)
    for operation in (
        lambda: other.give_back(record, 0.0), lambda: other.discard(record), lambda: other.disposed(record),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            operation()
    for core in (one, other):
        core.check_invariants()
    assert (one.total, other.total, one.lent_size('a')) == (1, 0, 1)
    assert one.take_back(record, record.uses) and one.give_back(record, 0.0)


def test_a_ticket_of_another_core_is_refused_and_nothing_changes(twin: Twin) -> None:
    one, other = make_core(twin), make_core(twin)
    ticket, waiting = twin.get('waiters', 'Ticket')(), twin.get('waiters', 'Ticket')()
    one.request(ticket, 'a', 0.0)
    fill(twin, one, 'b')
    one.request(waiting, 'a', 0.0)
    for operation in (
        lambda: other.fulfil(ticket, object(), 0.0), lambda: other.fail(ticket),
        lambda: other.transfer(ticket, waiting), lambda: other.request(ticket, 'a', 0.0),
        lambda: other.request(waiting, 'a', 0.0), lambda: other.join(waiting, 0),
        lambda: one.request(waiting, 'b', 0.0), lambda: one.join(waiting, 0), lambda: one.transfer(ticket, waiting),
        lambda: one.transfer(ticket, ticket), lambda: one.leave(waiting, 0), lambda: other.leave(waiting, 0),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            operation()
    assert not other.withdraw(waiting)
    other.rest(waiting)
    assert (one.waiting('a'), one.total, other.total) == (1, 2, 0)
    one.check_invariants()
    assert one.withdraw(waiting)
    one.fail(ticket)


def test_a_victim_outlives_its_disposal_by_somebody_else(twin: Twin) -> None:
    core = make_core(twin)
    ticket = fill(twin, core)
    core.replace(ticket, 0.0)
    core.disposed(ticket.victim)
    assert 'gone' in repr(ticket.victim) and 'gone' in repr(ticket.take_victim())


def test_a_deadline_that_is_no_number_does_not_keep_the_heap_busy_for_ever(twin: Twin) -> None:
    heap, record = twin.get('heap', 'ExpiryHeap')(), twin.get('record', 'Record')(object(), 'a', 0.0, 1.0)
    record.state = twin.get('record', 'IDLE_CORE')
    heap.arm(record)
    record.deadline = float('nan')
    assert heap.nearest() is record


def test_what_is_in_use_is_not_made_anew(twin: Twin) -> None:
    core = make_core(twin)
    ticket, waiting, closer = fill(twin, core), twin.get('waiters', 'Ticket')(), twin.get('waiters', 'Ticket')()
    fill(twin, core)
    core.request(waiting, 'a', 0.0)
    assert not core.join(closer, 0)
    for operation in (
        lambda: ticket.record.__init__(object(), 'b', 0.0, 1.0), lambda: waiting.__init__(), lambda: closer.__init__(),
        lambda: core.join(closer, 0), lambda: core.request(closer, 'b', 0.0),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match='in use|waits or holds something'):
            operation()
    core.check_invariants()
    core.leave(closer, 0)
    with pytest.raises(RuntimeError, match='does not wait'):
        core.leave(closer, 0)
    assert core.withdraw(waiting) and not core.withdraw(waiting)


def test_a_ticket_that_is_revoked_while_it_waits_is_granted_nothing_that_it_could_use(twin: Twin) -> None:
    core = twin.get('core', 'Core')(0, 1, 1, 60.0, 3600.0)
    ticket, waiting = fill(twin, core), twin.get('waiters', 'Ticket')()
    core.request(waiting, 'a', 0.0)
    waiting.revoke()
    assert core.discard(ticket.record)
    core.disposed(ticket.record)  # the slot goes to who waits
    for operation in (
        lambda: core.fulfil(waiting, object(), 0.0), lambda: core.fail(waiting),
        lambda: core.transfer(waiting, twin.get('waiters', 'Ticket')()),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match='holds no slot'):
            operation()
    core.check_invariants()


@pytest.mark.skipif(compiled_core_is_missing(), reason='the pure-Python twin makes a new context manager of it')
@pytest.mark.parametrize(('module', 'pool', 'lease'), [
    ('thread_pool', 'ThreadPool', 'Lease'), ('async_pool', 'AsyncPool', 'AsyncLease'),
])  # fmt: skip
def test_a_context_manager_of_the_compiled_core_cannot_pass_to_another_pool(module: str, pool: str, lease: str) -> None:
    one, other = CYTHON.get(module, pool)(), CYTHON.get(module, pool)()
    with pytest.raises(RuntimeError, match='in use already'):
        one.connection('a').__init__(other, 'a', None)
    with pytest.raises(RuntimeError, match='in use already'):
        CYTHON.get(module, lease)(one, 'a', None).__init__(other, 'a', None)


def test_a_pool_that_is_given_another_core_takes_nothing_back_from_the_former_one(twin: Twin) -> None:
    one, other = make_core(twin), make_core(twin)
    ticket, now = twin.get('waiters', 'Ticket')(), twin.get('lock', 'monotonic')()
    one.request(ticket, 'a', now)
    assert one.fulfil(ticket, object(), now) and one.give_back(ticket.record, now)
    pool = type('Pool', (twin.get('thread_pool', 'ThreadPool'),), {'_is_inherited': lambda self, conn: False})()
    pool._setup(one, None, True, True, True, False, None, None)
    with pytest.raises(RuntimeError, match='is not acquired from endpoint'), pool.connection('a'):
        pool._renew(other, None)
    assert other.total == 0
    other.check_invariants()
