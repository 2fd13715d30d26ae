"""All interleavings of a few operations on the core: three threads of four operations, on pools of size 1 and 2."""

import os
import random
from typing import Any, Dict, List, Set

import pytest
from exhaustive.cases import SIZES, cases
from exhaustive.expected import EXPECTED
from exhaustive.explore import Case, Run, each_interleaving, each_state
from support.core_twins import CYTHON, PYTHON, Twin, compiled_core_is_missing

#: set to 1, it has each interleaving of each case run one by one, with both cores (for some minutes)
EVERYTHING = os.environ.get('TEST_EACH_INTERLEAVING') == '1'
#: without it, only the cases with no more interleavings than this are, with the compiled core. (Going through all
#: states covers all interleavings, but takes it that what is inside the pure core tells one state from another.)
FEW = 1500
TWINS = [PYTHON] if compiled_core_is_missing() else [CYTHON, PYTHON]


def param(size: int, case: Case, *twins: Twin) -> Any:
    return pytest.param(*twins, size, case, id=', '.join([case.name, str(size), *map(str, twins)]))


ALL = [(size, case) for size in SIZES for case in cases(size)]
ONE_BY_ONE = [
    param(size, case, twin)
    for size, case in ALL
    for twin in TWINS
    if EVERYTHING or (twin is TWINS[0] and EXPECTED[case.name][size - 1][0] <= FEW)
]

#: what only tells how things are
QUESTIONS = {
    'check_invariants', 'closed', 'drained', 'due', 'endpoints', 'find', 'forced', 'holders', 'idle_size',
    'idle_timeout', 'lent_size', 'max_lifetime', 'max_size', 'min_idle', 'mutex', 'size', 'total',
    'total_max_size', 'waiting',
}  # fmt: skip
#: after a fork there is one thread, and nothing to be interleaved
ELSEWHERE = {'disown'}


def test_the_cases_are_those_that_were_counted() -> None:
    for size in SIZES:
        assert [case.name for case in cases(size)] == list(EXPECTED)


@pytest.mark.parametrize('size, case', [param(*one) for one in ALL])
def test_every_state_that_any_interleaving_leads_to_keeps_all_promises(size: int, case: Case) -> None:
    assert each_state(TWINS[0], case) == EXPECTED[case.name][size - 1]


@pytest.mark.parametrize('twin, size, case', ONE_BY_ONE)
def test_each_interleaving_keeps_all_promises(twin: Twin, size: int, case: Case) -> None:
    assert each_interleaving(twin, case) == EXPECTED[case.name][size - 1]


class Noted:
    """A core, and the operations that were done with it."""

    def __init__(self, core: Any, names: Set[str]):
        self._core = core
        self._names = names

    def __getattr__(self, name: str) -> Any:
        self._names.add(name)
        return getattr(self._core, name)


def test_the_cases_use_all_operations_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Set[str] = set()
    original = PYTHON.get

    def get(module: str, name: str) -> Any:
        found = original(module, name)
        return (lambda *limits: Noted(found(*limits), used)) if name == 'Core' else found

    monkeypatch.setattr(PYTHON, 'get', get)
    for case in cases(1):
        for seed in range(10):
            one_interleaving(case, random.Random(seed))
    operations = {name for name in dir(original('core', 'Core')) if not name.startswith('_')}
    assert operations - QUESTIONS - ELSEWHERE == used - QUESTIONS


def one_interleaving(case: Case, choice: random.Random) -> None:
    run = Run(PYTHON, case)
    turns: List[int] = []
    while run.enabled():
        turns.append(choice.choice(run.enabled()))
        run.step_and_check(turns)
    run.check_end(turns)


# What follows puts mistakes into the pure core: each must be found out, and by the promise that it breaks.

Core = PYTHON.get('core', 'Core')


def no_taker(core: Any, endpoint: Any, beneficiary: Any) -> None:
    """A slot that becomes free is offered to nobody."""


def own_taker(core: Any, endpoint: Any, beneficiary: Any) -> Any:
    """A slot that becomes free is offered to its own endpoint only."""
    return endpoint if endpoint.waiters.count else None


def push_in_front(queue: Any, ticket: Any) -> None:
    """Last come, first served."""
    ticket.prev, ticket.next = None, queue.head
    if queue.head is None:
        queue.tail = ticket
    else:
        queue.head.prev = ticket
    queue.head = ticket
    queue.count += 1
    queue.come_off_duty(ticket)
    queue.off_duty = queue.head


def withdraw_in_silence(core: Any, ticket: Any, woken: Any) -> bool:
    """The eviction that somebody who stops waiting has in hand serves nobody else."""
    if ticket.state != 1:
        return False
    ticket.state = 0
    ticket.endpoint.waiters.remove(ticket)
    core._drop_unused(ticket.endpoint)
    return True


def withdraw_too_late(core: Any, ticket: Any, woken: Any) -> bool:
    """Who stops waiting forgets what he was granted at that moment."""
    if ticket.state == 1:
        return bool(original_withdraw(core, ticket, woken))
    ticket.state = 0
    return True


original_withdraw = Core._withdraw


def wake_nobody(core: Any, endpoint: Any, ticket: Any, woken: Any) -> None:
    """A ticket is granted something and its owner is not told."""
    endpoint.waiters.remove(ticket)


def take_back_any_loan(core: Any, record: Any, loan: int) -> bool:
    """Whose loan it is does not matter."""
    if record.state != 2:
        return False
    record.state = 3
    return True


def close_for_newcomers(core: Any, woken: Any) -> None:
    """Who waits when the pool is closed goes on waiting."""
    core.closed = True


def keep_silent_at_the_end(core: Any, woken: Any) -> None:
    """Who waits for an empty pool is not told that it is."""


def look_at_no_deadline(idle: Any, now: float) -> Any:
    """What is past its time is handed out."""
    return idle.core.head or idle.extra.tail


MISTAKES: Dict[Any, Any] = {
    no_taker: ('core', 'Core', '_choose_taker', 'a slot is free'),
    own_taker: ('core', 'Core', '_choose_taker', 'a slot is free'),
    push_in_front: ('waiters', 'WaitQueue', 'push', 'was served before'),
    withdraw_in_silence: ('core', 'Core', '_withdraw', 'wrong ring'),
    withdraw_too_late: ('core', 'Core', '_withdraw', 'deadlock|slots are in use'),
    wake_nobody: ('core', 'Core', '_pop_waiter', 'was not woken'),
    take_back_any_loan: ('core', 'Core', 'take_back', 'of loan 1'),
    close_for_newcomers: ('core', 'Core', '_close', 'closed'),
    keep_silent_at_the_end: ('core', 'Core', '_wake_closers', 'deadlock'),
    look_at_no_deadline: ('deque', 'IdleDeque', 'first', 'its time has come'),
}


@pytest.mark.parametrize('mistake', MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_core_that_breaks_a_promise_is_found_out(monkeypatch: pytest.MonkeyPatch, mistake: Any) -> None:
    module, owner, method, promise = MISTAKES[mistake]
    monkeypatch.setattr(PYTHON.get(module, owner), method, mistake)
    with pytest.raises(AssertionError, match=promise):
        for _, case in ALL:
            each_state(PYTHON, case)
