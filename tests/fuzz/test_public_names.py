"""Every public name is fed junk, whatever it is: a name that is new is found here, and fails until it is known how to
make one of it. What comes of it is told by type; the other tests of this directory look at it more closely.

Connections that only managers make (:func:`is_made_by_managers`) are fed nothing themselves.
"""

import asyncio
import functools
import importlib
import inspect
import os
import sqlite3
import ssl
import threading
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from fuzz.cases import JUNK
from support.servers import eventually, open_descriptors, refusing_port

import generic_connection_pool.asyncio as tasks
import generic_connection_pool.threading as threads
from generic_connection_pool import BaseError

MODULES = (
    '', 'asyncio', 'asyncio.locks', 'contrib.asyncmy', 'contrib.asyncpg', 'contrib.asyncssh', 'contrib.dbapi',
    'contrib.http', 'contrib.paramiko', 'contrib.psycopg2', 'contrib.redis', 'contrib.redis_async', 'contrib.smtp',
    'contrib.socket', 'contrib.socket_async', 'contrib.unix', 'contrib.unix_async', 'exceptions', 'rankmap',
    'threading', 'threading.locks',
)  # fmt: skip
#: methods by which objects are used without being called by a name that says so
OPERATORS = ('__contains__', '__delitem__', '__getitem__', '__setitem__')
#: parameters that have their place
PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
#: errors that tell a user of a mistake of theirs. What is none of these is a mistake of ours.
CLEAR = (ArithmeticError, AttributeError, BaseError, LookupError, OSError, RuntimeError, TypeError, ValueError)
#: managers raise those of their own libraries, too
LIBRARIES = ('asyncmy', 'asyncpg', 'asyncssh', 'paramiko', 'psycopg2', 'redis', 'sqlite3')


class ThreadsManager(threads.BaseConnectionManager[Any, Any]):
    def create(self, endpoint: Any, timeout: Any = None) -> Any:
        return object()

    def dispose(self, endpoint: Any, conn: Any, timeout: Any = None) -> None:
        pass


class TasksManager(tasks.BaseConnectionManager[Any, Any]):
    async def create(self, endpoint: Any) -> Any:
        return object()

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        pass


@functools.cache
def tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails any test that leaves a file descriptor open, or a thread running."""
    # nobody need be trusted, and contexts are made many times
    monkeypatch.setenv('SSL_CERT_FILE', os.devnull)
    descriptors, running = open_descriptors(), set(threading.enumerate())
    yield
    eventually(lambda: open_descriptors() <= descriptors, 'the closing of all file descriptors')
    eventually(lambda: set(threading.enumerate()) <= running, 'the end of all threads')


def closing(pool: Any) -> None:
    """Have an open pool not complain when it is garbage."""
    pool._core.close()


def refused(**more: Any) -> Dict[str, Dict[str, Any]]:
    """Connect keywords of an endpoint that is known and does not answer."""
    return {'endpoint': {'host': '127.0.0.1', 'port': refusing_port(), **more}}


def fresh(name: str, owner: Any) -> Any:
    """Return an instance of a public class to call the methods of, by the class's full name."""
    special: Dict[str, Callable[[], Any]] = {
        'common.BaseConnectionPool': lambda: threads.ConnectionPool(ThreadsManager()),
        'threading.pool.ConnectionPool': lambda: owner(ThreadsManager()),
        'asyncio.pool.ConnectionPool': lambda: owner(TasksManager()),
        'threading.manager.BaseConnectionManager': ThreadsManager,
        'asyncio.manager.BaseConnectionManager': TasksManager,
        'contrib.socket.SslSocketConnectionManager': lambda: owner(tls_context()),
        'contrib.psycopg2.DbConnectionManager': lambda: owner({'db': {'host': '127.0.0.1'}}),
        'contrib.asyncpg.DbConnectionManager': lambda: owner({'db': {'host': '127.0.0.1'}}),
        'contrib.asyncmy.DbConnectionManager': lambda: owner(refused()),
        'contrib.asyncssh.SshConnectionManager': lambda: owner(refused(config=None)),
        'contrib.dbapi.DbConnectionManager': lambda: owner(sqlite3, {'endpoint': {'database': ':memory:'}}),
        'contrib.http.HttpConnectionManager': lambda: owner(tls_context()),
        'contrib.paramiko.SshConnectionManager': lambda: owner(
            {'endpoint': {'hostname': '127.0.0.1', 'port': refusing_port()}}
        ),
        'contrib.redis.RedisConnectionManager': lambda: owner(refused()),
        'contrib.redis_async.RedisConnectionManager': lambda: owner(refused()),
        'contrib.smtp.SmtpConnectionManager': lambda: owner(
            {'endpoint': PUBLIC['contrib.smtp.SmtpServer']('127.0.0.1', refusing_port(), 'plain')}, tls_context()
        ),
        'contrib.smtp.SmtpServer': lambda: owner('127.0.0.1'),
    }
    return special.get(name, owner)()


def endpoint_for(name: str) -> Any:
    """Return an endpoint that a manager of :func:`fresh` knows, by the full name of its class."""
    return ('http', '127.0.0.1', refusing_port()) if name == 'contrib.http.HttpConnectionManager' else 'endpoint'


def is_made_by_managers(value: Any) -> bool:
    """Whether nobody but a connection manager, or its library, makes one: a class that extends one of a library's, or
    that only says what something else is like.
    """
    known = ('_cpool', 'abc', 'builtins', 'collections', 'generic_connection_pool', 'typing')
    return getattr(value, '_is_protocol', False) or (
        inspect.isclass(value) and any(base.__module__.partition('.')[0] not in known for base in value.__mro__)
    )


def public() -> Iterator[Tuple[str, Any]]:
    """Yield all that the public modules export, by full name; what two of them export, once."""
    found: Dict[str, Any] = {}
    for module_name in MODULES:
        full = f'generic_connection_pool.{module_name}'.rstrip('.')
        try:
            module = importlib.import_module(full)
        except ImportError:  # of a driver that is not installed
            continue
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value) or not getattr(value, '__module__', '').startswith('generic_connection_pool'):
                continue  # a constant or a name for something else's type
            if inspect.isclass(value) and issubclass(value, BaseException):
                continue  # an exception takes what it is given
            if not is_made_by_managers(value):
                found[f'{value.__module__}.{value.__qualname__}'.removeprefix('generic_connection_pool.')] = value
    yield from sorted(found.items())


def methods(owner: Any) -> List[str]:
    return [
        name
        for name in dir(owner)
        if (not name.startswith('_') or name in OPERATORS) and callable(getattr(owner, name))
    ]


PUBLIC = dict(public())
#: abstract classes of which :func:`fresh` makes a concrete one; the managers that derive from the others are public
CONCRETE = (
    'common.BaseConnectionPool', 'asyncio.manager.BaseConnectionManager', 'threading.manager.BaseConnectionManager',
)  # fmt: skip
METHODS = [
    (name, method)
    for name, value in PUBLIC.items()
    if inspect.isclass(value) and not (inspect.isabstract(value) and name not in CONCRETE)
    for method in methods(value)
]


def calls(target: Any, endpoint: Any = 'endpoint') -> Iterator[Tuple[Tuple[Any, ...], Dict[str, Any]]]:
    """Yield arguments: each piece of junk in all places at once, then as each of those that may be left out."""
    parameters = inspect.signature(target).parameters.values()
    required = sum(
        parameter.default is parameter.empty and parameter.kind in PLACED
        for parameter in parameters
    )
    optional = [
        parameter.name
        for parameter in parameters
        if parameter.default is not parameter.empty and parameter.kind is not parameter.POSITIONAL_ONLY
    ]
    for junk in JUNK:
        yield (junk,) * required, {}
        for name in optional:
            yield (endpoint,) * required, {name: junk}


async def outcome_of(awaitable: Any) -> None:
    async with _limit():
        await awaitable


class _limit:
    """A bound of ten seconds, for what ought to take none: nothing must wait for ever because of junk."""

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.timer = asyncio.get_running_loop().call_later(10.0, task.cancel)

    async def __aexit__(self, *exc_info: Any) -> None:
        self.timer.cancel()


def feed(target: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call with junk. Whatever happens, it is a result or a clear error."""
    try:
        result = target(*args, **kwargs)
        if inspect.isawaitable(result):
            asyncio.run(outcome_of(result))
            return None
        return result
    except Exception as exc:
        assert isinstance(exc, CLEAR) or type(exc).__module__.partition('.')[0] in LIBRARIES, repr(exc)
        assert not isinstance(exc, (NotImplementedError, RecursionError)), repr(exc)
        if type(exc) is not KeyError:  # which tells the key and no more, as that of a dict does
            assert str(exc), f'{exc!r} says nothing'
        return None


def test_all_public_modules_are_looked_at() -> None:
    package = importlib.import_module('generic_connection_pool')
    assert set(package.__all__) >= {'BaseError', 'core_implementation'}
    assert {'rankmap.RankMap', 'threading.pool.ConnectionPool', 'asyncio.locks.SharedLock'} <= set(PUBLIC)
    assert ('rankmap.RankMap', 'insert') in METHODS and ('asyncio.pool.ConnectionPool', 'close') in METHODS


@pytest.mark.parametrize('name', PUBLIC)
def test_junk_for_a_constructor_or_function_gives_something_or_a_clear_error(name: str) -> None:
    target = PUBLIC[name]
    for args, kwargs in calls(target):
        made = feed(target, args, kwargs)
        if hasattr(made, '_core'):
            closing(made)


@pytest.mark.parametrize(('name', 'method'), METHODS, ids=lambda part: part)
def test_junk_for_a_method_gives_something_or_a_clear_error(name: str, method: str) -> None:
    owner = PUBLIC[name]
    subject = fresh(name, owner)
    for args, kwargs in list(calls(getattr(subject, method), endpoint_for(name))):
        made = feed(getattr(subject, method), args, kwargs)
        if made is not None and method == 'create' and hasattr(subject, 'dispose'):
            subject.dispose(args[0], made)
        if hasattr(subject, '_core'):
            subject._core.check_invariants()
            closing(subject)
        subject = fresh(name, owner)
    if hasattr(subject, '_core'):
        closing(subject)
