"""The manager of PEP 249 connections with drivers that nobody has told it of, each with a way of its own."""

import inspect
import sqlite3
import threading
from typing import Any, Callable, List, NoReturn, Type

import pytest

from generic_connection_pool.contrib.dbapi import DbConnectionManager
from generic_connection_pool.threading import ConnectionPool

Manager = DbConnectionManager[Any]
Pool = ConnectionPool[str, Any]


class AnyDriver:
    """A driver whose connections, to databases in memory, are of a class that a test has made."""

    Error: Type[Exception] = sqlite3.Error
    InterfaceError: Type[Exception] = sqlite3.InterfaceError
    InternalError: Type[Exception] = sqlite3.InternalError
    OperationalError: Type[Exception] = sqlite3.OperationalError
    ProgrammingError: Type[Exception] = sqlite3.ProgrammingError
    NotSupportedError: Type[Exception] = sqlite3.NotSupportedError

    def __init__(self, make: Callable[[], Any]):
        self._make = make

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        return self._make()


class PlainConnection:
    """As little as a connection can have."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(':memory:', check_same_thread=False)
        self.was_closed = False

    def cursor(self) -> sqlite3.Cursor:
        return self.database.cursor()

    def close(self) -> None:
        self.was_closed = True
        self.database.close()


class ConnectionWhoseLossIsFoundByAsking(PlainConnection):
    """Asks its server whether it is closed."""

    is_lost = False

    @property
    def closed(self) -> bool:
        if self.is_lost:
            raise sqlite3.OperationalError('the server is gone')
        return self.was_closed


class UntoldPing:
    """A function of which Python does not tell what arguments it takes, as of many that are written in C."""

    __signature__ = 0

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(self) -> None:
        self.calls += 1
        if self.fails:
            raise sqlite3.OperationalError('the server is gone')


class ConnectionWithUntoldPing(PlainConnection):
    def __init__(self) -> None:
        super().__init__()
        self.ping = UntoldPing()


def manager_of(make: Callable[[], Any], **parameters: Any) -> Manager:
    return DbConnectionManager(AnyDriver(make), {'main': {}}, **parameters)


def test_a_driver_that_knows_no_transactions_has_nothing_to_commit_or_to_roll_back() -> None:
    called: List[str] = []
    manager = manager_of(
        PlainConnection, configure=lambda conn: called.append('configure'), reset=lambda conn: called.append('reset')
    )
    pool: Pool = ConnectionPool(manager)
    with pool.connection('main') as conn:
        assert called == ['configure']
    assert called == ['configure', 'reset']
    with pool.connection('main') as again:
        assert again is conn
    pool.close()
    assert conn.was_closed


def test_a_connection_whose_loss_is_found_by_asking_whether_it_is_closed_is_dead() -> None:
    manager = manager_of(ConnectionWhoseLossIsFoundByAsking)
    conn = manager.create('main')
    assert manager.check_aliveness('main', conn)
    assert manager.is_reusable('main', conn, ValueError())
    conn.is_lost = True
    for timeout in (None, 0, 5.0):
        assert not manager.check_aliveness('main', conn, timeout)
    assert not manager.is_reusable('main', conn, ValueError())
    manager.dispose('main', conn)
    assert conn.was_closed


@pytest.mark.parametrize('is_idle', [True, False])
def test_a_connection_lost_while_idle_or_in_use_is_replaced(is_idle: bool) -> None:
    pool: Pool = ConnectionPool(manager_of(ConnectionWhoseLossIsFoundByAsking))
    with pytest.raises(ValueError), pool.connection('main') as conn:
        conn.is_lost = not is_idle
        raise ValueError
    assert pool.get_size() == int(is_idle)
    conn.is_lost = True
    with pool.connection('main') as again:
        assert again is not conn
        assert conn.was_closed
    pool.close()


def test_a_ping_that_does_not_tell_its_arguments_is_called_without_any() -> None:
    manager = manager_of(ConnectionWithUntoldPing)
    conn = manager.create('main')
    with pytest.raises((TypeError, ValueError)):
        inspect.signature(conn.ping)
    assert manager.check_aliveness('main', conn, 5.0)
    assert conn.ping.calls == 1
    conn.ping.fails = True
    assert not manager.check_aliveness('main', conn, 5.0)
    assert conn.ping.calls == 2
    manager.dispose('main', conn)


def test_a_connection_that_no_thread_could_be_started_to_ping_is_closed_by_who_disposes_of_it() -> None:
    def cannot_start(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    manager = manager_of(PlainConnection)
    conn = manager.create('main')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, 'start', cannot_start)
        with pytest.raises(RuntimeError, match='new thread'):
            manager.check_aliveness('main', conn, 5.0)
    # no thread is left alone with it, which would close it
    manager.dispose('main', conn)
    assert conn.was_closed
