"""The cases: three threads of four operations (and more where the core asks for them), on pools of size 1 and 2.

An operation of a thread that waits comes when it has been woken. Two threads of the same program are ``alike``.
"""

from typing import Any, List

from exhaustive.account import Limits
from exhaustive.explore import Case
from exhaustive.programs import Program, Steps, Thread

__all__ = ('cases', 'SIZES')

SIZES = (1, 2)
ALL = (0, 1, 2)


def cycle(key: str, **ways: Any) -> Program:
    """request, fulfil, take_back, give_back: the ordinary use."""

    def program(thread: Thread) -> Steps:
        if (yield from thread.request(key, **ways)):
            yield from thread.release()

    return program


def fast(key: str) -> Program:
    """take, take_back, give_back; or, if nothing is idle, the ordinary use."""

    def program(thread: Thread) -> Steps:
        if not (yield from thread.take(key)):
            if not (yield from thread.request(key)):
                return
        yield from thread.release()

    return program


def failing(key: str) -> Program:
    """request, fail, and the same again."""

    def program(thread: Thread) -> Steps:
        for _ in range(2):
            if (yield from thread.request(key, fails=True)):
                yield from thread.release()

    return program


def twice(key: str) -> Program:
    """The ordinary use, and the connection is given back a second time."""

    def program(thread: Thread) -> Steps:
        if (yield from thread.request(key)):
            conn, loan = thread.conn, thread.loan
            thread.account.shared.append((conn, loan))
            yield from thread.release_loan(conn, loan)
            yield from thread.release_loan(conn, loan)

    return program


def accomplice(thread: Thread) -> Steps:
    """Give back what another thread has acquired, by its loan."""
    shared = thread.account.shared
    yield lambda: bool(shared)
    yield from thread.release_loan(*shared[0])
    yield from thread.release_loan(*shared[0])


def dead(key: str, **ways: Any) -> Program:
    """request, replace (the connection granted is dead), fulfil, take_back, give_back."""

    def program(thread: Thread) -> Steps:
        if (yield from thread.request(key)):
            if (yield from thread.replace(**ways)):
                yield from thread.release()

    return program


def discarding(key: str) -> Program:
    """request, fulfil, discard, disposed."""

    def program(thread: Thread) -> Steps:
        if (yield from thread.request(key)):
            yield from thread.discard()

    return program


def handing_on(key: str, fails: bool) -> Program:
    """request, transfer, and fail or fulfil, discard, disposed: a cancelled creation."""
    return lambda thread: thread.hand_on_slot(key, fails)


def collecting(*seconds: float) -> Program:
    """After each of these times, dispose of what is due: next_due, disposed."""

    def program(thread: Thread) -> Steps:
        for pause in seconds:
            yield from thread.pass_time(pause)
            yield from thread.collect()

    return program


def alarmed(thread: Thread) -> Steps:
    """What the collector does: set_alarm, sleep, next_due, disposed."""
    while not thread.account.closed:
        yield from thread.sleep_until_due()
        while (yield from thread.collect()):
            pass
    yield from thread.no_alarm()


def closing(thread: Thread) -> Steps:
    """close, next_idle, disposed, join, leave."""
    yield from thread.close()
    yield from thread.empty()
    yield from thread.drain()


def closing_after(seconds: float) -> Program:
    """Time passes, then the pool is closed."""

    def program(thread: Thread) -> Steps:
        yield from thread.pass_time(seconds)
        yield from closing(thread)

    return program


def forcing(thread: Thread) -> Steps:
    """close, next_idle, next_lent, disposed."""
    yield from thread.close()
    yield from thread.empty()
    yield from thread.force()


def outdating(key: str) -> Program:
    """outdate, and the ordinary use."""

    def program(thread: Thread) -> Steps:
        yield from thread.outdate()
        yield from cycle(key)(thread)

    return program


def hammering(key: str, times: int) -> Program:
    """Hold a connection, and stand in the queue for the next one as soon as it is given back."""

    def program(thread: Thread) -> Steps:
        for _ in range(times):
            if (yield from thread.request(key)):
                yield from thread.release()

    return program


def helping(thread: Thread) -> Steps:
    """disposed, of what others leave to it."""
    yield from thread.work()


def victimless(key: str, **ways: Any) -> Program:
    """The ordinary use, with victims left to the third thread: rest instead of disposed."""

    def program(thread: Thread) -> Steps:
        helper = thread.account.parties[2]
        if (yield from thread.request(key, helper=helper, **ways)):
            yield from thread.release()

    return program


def cases(size: int) -> List[Case]:
    """All of them for pools of this size: of one endpoint and, where there are several, in total."""
    one = Limits(size)
    total = Limits(2, total_max_size=size)
    extras = Limits(size, min_idle=0)
    turns = turns_of_bypassing()
    return [
        Case('use', one, [cycle('a')] * 3, alike=ALL),
        Case('use of what is idle', one, [fast('a')] * 3, idle=['a'] * size, alike=ALL),
        Case('use of what may be idle', one, [fast('a'), fast('a'), cycle('a')], alike=ALL[:2]),
        Case('creating fails', one, [failing('a'), failing('a'), cycle('a')], alike=ALL[:2]),
        Case('creating fails, two endpoints', total, [failing('a'), failing('b'), cycle('a')]),
        Case('closed while creating', one, [cycle('a'), cycle('a', fails=True), closing]),
        Case('closed while in use', one, [fast('a'), cycle('a', patience='timeout'), closing], idle=['a']),
        Case('closed by force', one, [cycle('a'), discarding('a'), forcing], idle=['a']),
        Case('closed with a dead one', one, [dead('a'), cycle('a'), forcing], idle=['a']),
        Case('a timeout races a grant', one, [cycle('a'), cycle('a'), cycle('a', patience='timeout')], alike=ALL[:2]),
        Case('a cancellation races a grant', one, [cycle('a', patience='cancel'), cycle('a'), cycle('a')],
             alike=ALL[1:]),
        Case('both race, and creating fails', one,
             [cycle('a', patience='timeout'), cycle('a', patience='cancel'), cycle('a', fails=True)]),
        Case('a dead one is replaced', one, [dead('a'), cycle('a'), cycle('a', patience='timeout')], idle=['a'] * size),
        Case('two dead ones are replaced', one, [dead('a', patience='timeout'), dead('a'), cycle('a')],
             idle=['a'] * size),
        Case('a dead one under the total limit', total, [dead('a'), cycle('b'), cycle('a', patience='cancel')],
             idle=['a'] * size),
        Case('eviction', total, [cycle('b'), cycle('c'), cycle('a')], idle=['a'] * size),
        Case('eviction races a timeout', total, [cycle('b', patience='timeout'), cycle('b'), cycle('a')],
             idle=['a'] * size),
        Case('eviction races a cancellation', total, [cycle('b', patience='cancel'), cycle('a'), fast('a')],
             idle=['a'] * size),
        Case('a victim is left to another', total, [victimless('b'), victimless('c', patience='timeout'), helping],
             idle=['a'] * size),
        Case('nothing to evict', total, [cycle('a'), cycle('b'), cycle('c', patience='timeout')]),
        Case('closed while evicting', total, [cycle('b'), cycle('b', patience='timeout'), closing], idle=['a'] * size),
        Case('expiry races an acquire', extras, [collecting(6.0, 6.0), fast('a'), cycle('a')], idle=['a'] * size),
        Case('expiry races an eviction', Limits(2, size, 0), [collecting(6.0, 6.0), cycle('b'), cycle('a')],
             idle=['a'] * size),
        Case('a lifetime ends', Limits(size, max_lifetime=10.0), [collecting(12.0), cycle('a'), fast('a')],
             idle=['a'] * size),
        Case('nothing may be idle', Limits(size, min_idle=0, idle_timeout=0.0), [cycle('a')] * 3, alike=ALL),
        Case('the collector is told', extras, [alarmed, fast('a'), closing_after(11.0)]),
        Case('discarding', one, [discarding('a'), discarding('a'), cycle('a')], idle=['a'], alike=ALL[:2]),
        Case('discarding under the total limit', total, [discarding('a'), cycle('b'), cycle('b', patience='cancel')]),
        Case('given back twice', one, [twice('a'), accomplice, cycle('a')]),
        Case('given back twice, another waits', total, [twice('a'), accomplice, cycle('b')]),
        Case('a slot changes hands', one, [handing_on('a', True), handing_on('a', False), cycle('a')]),
        Case('a slot changes hands while closing', one, [handing_on('a', False), cycle('a'), closing]),
        Case('outdated', one, [cycle('a'), outdating('a'), cycle('a', patience='timeout')], idle=['a']),
        Case('bypass', Limits(size, total_max_size=1), [hammering('a', 9), cycle('b'), hammering('a', 9)],
             lead_in=turns),
    ]  # fmt: skip


def turns_of_bypassing() -> List[int]:
    """The first and the third thread hand a connection to each other until the second is about to have its turn."""
    turns = [0, 0, 1, 2]
    for thread in [0, 2] * 7:
        turns += [thread] * 3
    return turns
