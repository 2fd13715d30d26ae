"""Real threads on one core: whatever they do, nobody sleeps for ever, and nothing is lost."""

import random
import sys
import threading
import time
from typing import Any, Iterator, List, Optional

import pytest
from support.core_desk import Desk
from support.core_twins import Twin, all_twins

#: longer than anything here takes, unless somebody is never woken
LONG = 30.0

pytestmark = pytest.mark.parametrize('twin', all_twins())


@pytest.fixture(autouse=True)
def switch_threads_often() -> Iterator[None]:
    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(former)


class Connection:
    """Notices if two have it at the same time, or if it is disposed of twice or while in use."""

    def __init__(self) -> None:
        self.user: Optional[int] = None
        self.closed = False

    def use(self, user: int) -> None:
        assert self.user is None, f'{user} has got the connection of {self.user}'
        assert not self.closed, f'{user} has got a closed connection'
        self.user = user

    def leave(self, user: int) -> None:
        assert self.user == user
        self.user = None

    def close(self) -> None:
        assert not self.closed, 'disposed of twice'
        assert self.user is None, 'disposed of while in use'
        self.closed = True


class Crowd:
    """Threads that use one core as a facade does, and fail the test if anything goes wrong in one of them.

    :param twin: the implementation
    :param limits: the core's
    """

    def __init__(self, twin: Twin, **limits: Any):
        self.core = Desk(twin, **limits).core
        self.state = {name: twin.get('waiters', name) for name in ('WAITING', 'CONNECTION', 'SLOT', 'CLOSED')}
        self.new_ticket = twin.get('waiters', 'Ticket')
        self.created: List[Connection] = []
        self.errors: List[BaseException] = []
        self.threads: List[threading.Thread] = []

    def start(self, work: Any, *args: Any) -> None:
        def run() -> None:
            try:
                work(*args)
            except BaseException as exc:
                self.errors.append(exc)

        self.threads.append(threading.Thread(target=run, daemon=True))

    def run(self) -> None:
        """Run all threads to their end."""
        for thread in self.threads:
            thread.start()
        deadline = time.monotonic() + LONG
        for thread in self.threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        if self.errors:
            raise self.errors[0]
        stuck = sum(thread.is_alive() for thread in self.threads)
        assert not stuck, f'{stuck} threads are never woken; total {self.core.total}, endpoints {self.core.endpoints()}'

    def dispose(self, record: Any, ticket: Any = None) -> None:
        record.conn.close()
        self.core.disposed(record, ticket)

    def dispose_all_idle(self) -> None:
        record = self.core.next_idle()
        while record is not None:
            self.dispose(record)
            record = self.core.next_idle()

    def assert_nothing_is_lost(self) -> None:
        self.core.check_invariants()
        self.dispose_all_idle()
        assert self.core.total == 0
        assert self.core.endpoints() == []
        assert all(conn.closed for conn in self.created), 'a connection was never disposed of'

    # -- what a thread does

    def use_once(self, draw: random.Random, key: Any, user: int) -> bool:
        """Acquire, use and release a connection, with any kind of mishap. Returns whether it was used."""
        record = self.core.take(key, time.monotonic(), user) if draw.random() < 0.3 else None
        if record is None:
            record = self.acquire(draw, key, user)
        if record is None:
            return False
        loan = record.uses
        record.conn.use(user)
        if draw.random() < 0.05:
            self.core.check_invariants()
        record.conn.leave(user)
        assert self.core.take_back(record, loan)
        if draw.random() < 0.1:
            assert self.core.discard(record)
            self.dispose(record)
        elif not self.core.give_back(record, time.monotonic()):
            self.dispose(record)
        return True

    def acquire(self, draw: random.Random, key: Any, user: int) -> Optional[Any]:
        core, state_of = self.core, self.state
        timeout = draw.choice([None, None, None, 0.0, 0.001])
        ticket = self.new_ticket(user)
        core.request(ticket, key, time.monotonic())
        while True:
            state = ticket.state
            victim = ticket.take_victim()
            if victim is not None and draw.random() < 0.7:
                self.dispose(victim, ticket)
            elif victim is not None:
                core.rest(ticket)
                self.dispose(victim)
            if state == state_of['WAITING']:
                if not ticket.wait(timeout) and core.withdraw(ticket):
                    last = ticket.take_victim()
                    if last is not None:
                        self.dispose(last, ticket)
                    return None
            elif state == state_of['SLOT']:
                if draw.random() < 0.2:
                    core.fail(ticket)
                    return None
                conn = Connection()
                self.created.append(conn)
                if not core.fulfil(ticket, conn, time.monotonic()):
                    self.dispose(ticket.record)
                    return None
            elif state == state_of['CLOSED']:
                return None
            elif draw.random() < 0.1:
                core.replace(ticket, time.monotonic())
            else:
                return ticket.record


LIMITS = [
    pytest.param({'max_size': 2, 'total_max_size': 100}, id='limited by the endpoints'),
    pytest.param({'max_size': 3, 'total_max_size': 3}, id='limited by the total'),
    pytest.param({'max_size': 1, 'total_max_size': 1}, id='a single connection'),
    pytest.param({'max_size': 2, 'total_max_size': 3, 'idle_timeout': 0.0, 'min_idle': 0}, id='nothing stays idle'),
    pytest.param({'max_size': 3, 'total_max_size': 4, 'idle_timeout': 1e-4, 'max_lifetime': 2e-3}, id='short lives'),
]


@pytest.mark.parametrize('limits', LIMITS)
def test_whatever_threads_do_nobody_sleeps_for_ever_and_nothing_is_lost(twin: Twin, limits: Any) -> None:
    crowd = Crowd(twin, **limits)

    def work(user: int) -> None:
        draw = random.Random()
        for _ in range(60):
            crowd.use_once(draw, draw.choice('abc'), user)

    for user in range(8):
        crowd.start(work, user)
    crowd.run()
    crowd.assert_nothing_is_lost()


def test_a_collector_disposes_of_what_is_due_while_threads_use_the_core(twin: Twin) -> None:
    crowd = Crowd(twin, min_idle=0, max_size=3, total_max_size=5, idle_timeout=1e-3)
    collector = crowd.new_ticket(0)
    collected: List[Any] = []
    finished = threading.Event()

    def work(user: int) -> None:
        draw = random.Random()
        for _ in range(60):
            crowd.use_once(draw, draw.choice('abc'), user)

    def collect() -> None:
        while crowd.core.total or not finished.is_set():
            record = crowd.core.next_due(time.monotonic())
            if record is not None:
                collected.append(record)
                crowd.dispose(record)
                continue
            due = crowd.core.set_alarm(collector)
            collector.wait(None if due is None else max(due - time.monotonic(), 0.0))

    def finish() -> None:
        for thread in crowd.threads[:6]:
            thread.join(LONG)
        finished.set()
        collector.wake()

    for user in range(6):
        crowd.start(work, user)
    crowd.start(collect)
    crowd.start(finish)
    crowd.run()
    assert collected
    crowd.assert_nothing_is_lost()


def test_a_pool_that_is_closed_in_full_use_becomes_empty(twin: Twin) -> None:
    for _ in range(5):
        crowd = Crowd(twin, max_size=2, total_max_size=4)

        def work(user: int, crowd: Crowd = crowd) -> None:
            draw = random.Random()
            while not crowd.core.closed:
                crowd.use_once(draw, draw.choice('abc'), user)

        def close(crowd: Crowd = crowd) -> None:
            while len(crowd.created) < 20:
                crowd.use_once(random.Random(), 'a', 100)
            crowd.core.close()
            crowd.dispose_all_idle()
            ticket = crowd.new_ticket(0)
            if not crowd.core.join(ticket, 0):
                while not crowd.core.drained(0):
                    assert ticket.wait(LONG)
                crowd.core.leave(ticket, 0)
            assert crowd.core.total == 0

        for user in range(6):
            crowd.start(work, user)
        crowd.start(close)
        crowd.run()
        crowd.assert_nothing_is_lost()


def test_an_endpoint_that_comes_and_goes_all_the_time_is_always_found(twin: Twin) -> None:
    """Making, finding and removing endpoints whose keys collide."""

    class Key:
        def __init__(self, name: int):
            self.name = name

        def __hash__(self) -> int:
            return 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Key) and other.name == self.name

    crowd = Crowd(twin, max_size=1, total_max_size=3)

    def work(user: int) -> None:
        draw = random.Random()
        for _ in range(100):
            ticket = crowd.new_ticket(user)
            crowd.core.request(ticket, Key(draw.randrange(4)), 0.0)
            while ticket.state == crowd.state['WAITING']:
                assert ticket.wait(LONG)
            crowd.core.fail(ticket)

    for user in range(6):
        crowd.start(work, user)
    crowd.run()
    crowd.assert_nothing_is_lost()


def test_threads_that_share_a_connection_are_served_in_turn(twin: Twin) -> None:
    crowd = Crowd(twin, max_size=1)
    served = [0] * 8
    present = list(range(len(served)))

    def work(user: int) -> None:
        while max(served) < 50:
            ticket = crowd.new_ticket(user)
            crowd.core.request(ticket, 'a', 0.0)
            while ticket.state == crowd.state['WAITING']:
                assert ticket.wait(LONG)
            if ticket.state == crowd.state['SLOT']:
                conn = Connection()
                crowd.created.append(conn)
                crowd.core.fulfil(ticket, conn, 0.0)
            ticket.record.conn.use(user)
            served[user] += 1
            deadline = time.monotonic() + LONG
            while crowd.core.waiting('a') < len(present) - 1:  # until everybody wants it
                assert time.monotonic() < deadline
                time.sleep(0)
            ticket.record.conn.leave(user)
            assert crowd.core.give_back(ticket.record, 0.0)
        present.remove(user)

    for user in present:
        crowd.start(work, user)
    crowd.run()
    crowd.assert_nothing_is_lost()
    assert max(served) - min(served) <= 2, f'served: {served}'
