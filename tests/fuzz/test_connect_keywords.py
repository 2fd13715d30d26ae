"""Junk among connect keywords: managers have looked at what they pass on to libraries, or tell what those say of it.

The endpoint would not answer anyway: whatever comes of junk, it is an error that says something, and nothing is left.
"""

import asyncio
import gc
import importlib
import inspect
import os
import sqlite3
import threading
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from fuzz.cases import JUNK, NoRepr
from support.servers import eventually, open_descriptors, refusing_port

#: what users do wrong; the managers raise their libraries' own errors, too
CLEAR = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
LIBRARIES = ('asyncmy', 'asyncssh', 'paramiko', 'pymysql', 'redis')


class Kind(NamedTuple):
    """A manager whose endpoints are connect keywords."""

    #: the name of its module, and a driver that it needs
    module: str
    driver: str
    #: the keywords that are fed junk; the first names the host
    keywords: Tuple[str, ...]

    def manager(self, parameters: Any) -> Any:
        driver = pytest.importorskip(self.driver, exc_type=ImportError)
        module = importlib.import_module(f'generic_connection_pool.contrib.{self.module}')
        make, = (getattr(module, name) for name in module.__all__ if name.endswith('ConnectionManager'))
        return make(driver, parameters) if self.module == 'dbapi' else make(parameters)

    def refused(self, **more: Any) -> Dict[str, Any]:
        quiet = {'config': None} if self.module == 'asyncssh' else {}
        return {self.keywords[0]: '127.0.0.1', 'port': refusing_port(), **quiet, **more}


REDIS = (
    'host', 'port', 'username', 'password', 'db', 'protocol', 'ssl', 'socket_timeout', 'socket_connect_timeout',
    'client_name', 'unix_socket_path', 'credential_provider', 'socket_keepalive_options', 'parser_class', 'retry',
)  # fmt: skip
MYSQL = ('host', 'port', 'user', 'password', 'database', 'connect_timeout', 'read_timeout', 'charset', 'ssl')
KINDS = {
    'redis': Kind('redis', 'redis', REDIS),
    'redis_async': Kind('redis_async', 'redis', REDIS),
    'pymysql': Kind('dbapi', 'pymysql', MYSQL),
    'asyncmy': Kind('asyncmy', 'asyncmy', MYSQL),
    'paramiko': Kind('paramiko', 'paramiko', (
        'hostname', 'port', 'username', 'password', 'pkey', 'key_filename', 'sock', 'timeout', 'banner_timeout',
        'auth_timeout', 'channel_timeout', 'passphrase',
    )),
    'asyncssh': Kind('asyncssh', 'asyncssh', (
        'host', 'port', 'username', 'password', 'client_keys', 'known_hosts', 'login_timeout', 'connect_timeout',
        'keepalive_interval', 'config', 'client_factory', 'sock', 'family',
    )),
}  # fmt: skip
FED = [(name, keyword) for name, kind in KINDS.items() for keyword in kind.keywords]
kinds = pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails any test that leaves a file descriptor open, a thread running, or something that complains when it goes."""
    # nobody need be trusted, and contexts are made many times
    monkeypatch.setenv('SSL_CERT_FILE', os.devnull)
    descriptors, running = open_descriptors(), set(threading.enumerate())
    yield
    gc.collect()
    eventually(lambda: open_descriptors() <= descriptors, 'the closing of all file descriptors')
    eventually(lambda: set(threading.enumerate()) <= running, 'the end of all threads')


def failure(make: Callable[[], Any], endpoint: Any = 'endpoint') -> Exception:
    """Return the error of making a manager or a connection, one of which there must be."""
    try:
        manager = make()
        outcome = manager.create(endpoint)
        if inspect.isawaitable(outcome):
            asyncio.run(bounded(outcome))
    except Exception as exc:
        assert isinstance(exc, CLEAR) or type(exc).__module__.partition('.')[0] in LIBRARIES, repr(exc)
        assert str(exc), f'{exc!r} says nothing'
        return exc
    raise AssertionError('there is nobody to have connected to')


async def bounded(awaitable: Any) -> None:
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait([task], timeout=10.0)
    if not done:
        task.cancel()
        raise AssertionError('it hangs')
    task.result()


def hashable(values: List[Any]) -> Iterator[Any]:
    for value in values:
        try:
            hash(value)
        except TypeError:
            continue
        yield value


@pytest.mark.parametrize(('name', 'keyword'), FED)
def test_junk_for_a_keyword_is_a_clear_error(name: str, keyword: str) -> None:
    kind = KINDS[name]
    for junk in JUNK:
        failure(lambda: kind.manager({'endpoint': kind.refused(**{keyword: junk})}))


@kinds
def test_junk_for_keywords_is_a_clear_error(kind: Kind) -> None:
    for junk in JUNK:
        failure(lambda: kind.manager({'endpoint': junk}))
        failure(lambda: kind.manager({'endpoint': lambda *_: junk}))


@kinds
def test_a_name_of_a_keyword_that_is_no_string_is_an_error_that_says_so(kind: Kind) -> None:
    for junk in hashable(JUNK):
        if not isinstance(junk, str):
            error = failure(lambda: kind.manager({'endpoint': {**kind.refused(), junk: 'secret'}}))
            assert isinstance(error, TypeError) and f'must be strings, not a {type(junk).__name__}' in str(error)
            assert 'endpoint' in str(error) and 'secret' not in str(error)


@kinds
def test_any_endpoint_is_named_in_the_error(kind: Kind) -> None:
    for junk in hashable(JUNK):
        error = failure(lambda: kind.manager({junk: kind.refused()}), junk)
        assert 'endpoint' in str(error) and 'onnect' in str(error) and len(str(error)) < 600
        if isinstance(junk, NoRepr):
            assert 'NoRepr' in str(error)


@pytest.mark.parametrize(('name', 'keyword', 'value', 'error', 'message'), [
    ('redis', 'host', None, TypeError, "the host of endpoint 'endpoint' must be a string, not a NoneType"),
    ('redis_async', 'host', b'::1', TypeError, "the host of endpoint 'endpoint' must be a string, not a bytes"),
    ('redis', 'socket_timeout', '5', TypeError, "socket_timeout of endpoint 'endpoint' must be a number .* not a str"),
    ('redis_async', 'socket_connect_timeout', float('nan'), ValueError, 'socket_connect_timeout of .*, not nan'),
    ('paramiko', 'timeout', '5', TypeError, "timeout of endpoint 'endpoint' must be a number .* not a str"),
    ('paramiko', 'auth_timeout', True, TypeError, "auth_timeout of endpoint 'endpoint' must be a number .* not a bool"),
    ('asyncssh', 'connect_timeout', [5], TypeError, "connect_timeout of endpoint 'endpoint' must be .* not a list"),
    *((name, 'port', 70_000, ValueError, "the port of endpoint 'endpoint' must be from 1 to 65535, not 70000")
      for name in ('redis', 'redis_async', 'paramiko', 'asyncssh')),
])  # fmt: skip
def test_a_bad_value_is_named(name: str, keyword: str, value: Any, error: Any, message: str) -> None:
    kind = KINDS[name]
    with pytest.raises(error, match=message):
        raise failure(lambda: kind.manager({'endpoint': kind.refused(**{keyword: value})}))


def test_a_number_that_is_no_float_may_be_a_timeout_of_pymysql() -> None:
    kind = KINDS['pymysql']
    for number in JUNK:
        error = failure(lambda: kind.manager({'endpoint': kind.refused(connect_timeout=number)}))
        assert 'interpreted as an integer' not in str(error)


@pytest.mark.parametrize('wrong', ['autocommit', 5, None, [5], ['autocommit', None], [b'autocommit']])
def test_session_attributes_are_names(wrong: Any) -> None:
    module = importlib.import_module('generic_connection_pool.contrib.dbapi')
    with pytest.raises(TypeError, match='session_attributes must be names of attributes, not '):
        module.DbConnectionManager(sqlite3, {}, session_attributes=wrong)


@pytest.mark.parametrize('wrong', [[], {}, None, 5, b'tls', NoRepr(), 'TLS'])
def test_the_security_of_a_mail_server_is_one_of_three(wrong: Any) -> None:
    module = importlib.import_module('generic_connection_pool.contrib.smtp')
    with pytest.raises(ValueError, match="security must be 'starttls', 'tls' or 'plain', not "):
        module.SmtpServer('localhost', security=wrong)


def test_a_host_that_cannot_be_a_name_is_an_error_that_shows_it() -> None:
    module = importlib.import_module('generic_connection_pool.contrib.http')
    manager = module.HttpConnectionManager()
    with pytest.raises(ValueError, match="a host must be a name or an address, which 'xx.*xx' is not"):
        manager.create(('http', 'x' * 1000, 80))
