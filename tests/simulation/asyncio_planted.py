"""Defects that the asyncio simulation has to find: ways in which pools are known to fail."""

import asyncio
from asyncio import _get_running_loop
from typing import Any, Callable, NamedTuple, Optional, Tuple

import pytest
from generic_connection_pool._core import CONNECTION, SLOT
from generic_connection_pool.asyncio import ConnectionPool, pool
from generic_connection_pool.asyncio.background import Background
from generic_connection_pool.asyncio.waiter import Waiter

__all__ = ('PLANTED', 'Defect')


class Defect(NamedTuple):
    """Something that is put into the pool, and how the failures that it causes begin."""

    plant: Callable[[pytest.MonkeyPatch], None]
    failures: Tuple[str, ...]


def a_cancelled_waiter_eats_what_it_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    abandon = ConnectionPool._abandon

    def eat(self: Any, ticket: Any) -> Any:
        if ticket.state == CONNECTION and not ticket.dirty:
            ticket.record = None
        return abandon(self, ticket)

    monkeypatch.setattr(ConnectionPool, '_abandon', eat)


def a_create_that_is_cancelled_keeps_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    abandon = ConnectionPool._abandon

    def keep(self: Any, ticket: Any) -> Any:
        return () if ticket.state == SLOT else abandon(self, ticket)

    monkeypatch.setattr(ConnectionPool, '_abandon', keep)


def a_disposal_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: Any, record: Any, timeout: Optional[float]) -> None:
        if record.claim():
            self._doomed.pop(record, None)
            self._core.disposed(record)

    monkeypatch.setattr(ConnectionPool, '_dispose_of', forget)


def a_wake_up_from_another_thread_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    notify = Waiter.notify

    def lose(self: Waiter) -> None:
        if _get_running_loop() is not None:
            notify(self)

    monkeypatch.setattr(Waiter, 'notify', lose)


def a_waiter_swallows_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Waiter.wait

    async def swallow(self: Waiter, timeout: Optional[float]) -> bool:
        try:
            return await wait(self, timeout)
        except asyncio.CancelledError:
            return self._woken

    monkeypatch.setattr(Waiter, 'wait', swallow)


def deadlines_are_disregarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, 'remaining', lambda deadline: None if deadline is None else 1000.0)


def a_late_connection_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def adopt(self: Any, ticket: Any, task: Any) -> None:
        self._background.add(task, lambda task: None)

    monkeypatch.setattr(ConnectionPool, '_adopt', adopt)


def what_a_dead_loop_has_left_is_not_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Background, 'bury', lambda self: None)


#: how a lost slot or connection shows, whichever is seen first
LOST = ('accounts', 'deadlock', 'books', 'remains', 'late')

PLANTED = (
    Defect(a_cancelled_waiter_eats_what_it_was_granted, LOST),
    Defect(a_create_that_is_cancelled_keeps_its_slot, LOST),
    Defect(a_disposal_is_forgotten, LOST),
    Defect(a_wake_up_from_another_thread_is_lost, LOST),
    Defect(a_waiter_swallows_its_cancellation, ('a cancellation was swallowed',)),
    Defect(deadlines_are_disregarded, ('late',)),
    Defect(a_late_connection_is_dropped, LOST),
    Defect(what_a_dead_loop_has_left_is_not_taken_up, LOST),
)
