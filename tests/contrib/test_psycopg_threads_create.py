"""How the manager of psycopg 3 for threads opens connections, against a real server."""

import contextlib
import logging
import pathlib
import signal
import threading
import time
import traceback
from typing import Any, Dict, List

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from support.connecting import await_threads, brief_threads as brief_threads  # noqa: E402
from support.postgres import USER_WITH_PASSWORD, PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, LONG, MALFORMED, fetch, nowhere, parameters  # noqa: E402
from support.servers import eventually, open_descriptors, silent_server  # noqa: E402

from generic_connection_pool.contrib.psycopg import DbConnection, DbConnectionManager  # noqa: E402


# -- what it is made of


@pytest.mark.parametrize('wrong', ['zyqx', ['zyqx'], None, {'main': 'zyqx'}, {'main': ['zyqx']}])
def test_parameters_of_a_wrong_kind_are_refused_without_telling_them(wrong: Any) -> None:
    with pytest.raises(TypeError, match='dsn_params.*not a') as caught:
        DbConnectionManager(wrong)
    assert 'zyqx' not in str(caught.value)


@pytest.mark.parametrize('name', ['configure', 'reset'])
def test_a_callback_that_cannot_be_called_is_refused(name: str) -> None:
    wrong: Dict[str, Any] = {name: 'DISCARD ALL'}
    with pytest.raises(TypeError, match=f'{name} must be a callable or None, not a str'):
        DbConnectionManager({}, **wrong)


# -- creating


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_wrong_password_is_an_error_that_does_not_tell_it(postgres: PostgresServer, timeout: Any) -> None:
    wrong = 'wrong-secret'
    manager = DbConnectionManager({'main': parameters(postgres, user=USER_WITH_PASSWORD, password=wrong)})
    before = open_descriptors()
    with pytest.raises(psycopg.OperationalError, match="endpoint 'main'.*password authentication failed") as caught:
        manager.create('main', timeout)
    assert wrong not in str(caught.value)
    eventually(lambda: open_descriptors() == before)


@pytest.mark.parametrize('conninfo', MALFORMED)
@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_conninfo_that_cannot_be_parsed_is_not_told(conninfo: str, timeout: Any) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="dsn of endpoint 'main' cannot be parsed") as caught:
        DbConnectionManager({'main': {'conninfo': conninfo}}).create('main', timeout)
    assert not any(part in str(caught.value) for part in ('zy', 'qx'))
    # nor does a traceback tell what psycopg has said
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_nothing_that_is_logged_of_failing_connects_tells_a_password(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture, timeout: Any
) -> None:
    secret = 'Xq7-Wunderhorn-9z'
    where = f"host={postgres.parameters()['host']}&port={postgres.parameters()['port']}"
    manager = DbConnectionManager({
        'wrong password': parameters(postgres, user=USER_WITH_PASSWORD, password=secret),
        'wrong password in conninfo': {'conninfo': f'postgresql://{USER_WITH_PASSWORD}:{secret}@/alpha?{where}'},
        'refused': {**nowhere(), 'password': secret},
        'refused in conninfo': {'conninfo': f'postgresql://a:{secret}@127.0.0.1:{nowhere()["port"]}/alpha'},
        'wrong type': parameters(postgres, user=USER_WITH_PASSWORD, password=[secret]),
        'no such database': parameters(postgres, 'nowhere', password=secret),
        'provided': lambda: parameters(postgres, user=USER_WITH_PASSWORD, password=secret),
    })  # fmt: skip
    with caplog.at_level(logging.DEBUG):
        for endpoint in manager._dsn_params:
            with pytest.raises(psycopg.OperationalError, match=f"endpoint '{endpoint}'") as caught:
                manager.create(endpoint, timeout)
            assert secret not in ''.join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert secret not in caplog.text


def test_a_conninfo_that_is_no_string_is_refused_without_telling_it() -> None:
    with pytest.raises(TypeError, match="conninfo of endpoint 'main' must be a str, not a list") as caught:
        DbConnectionManager({'main': {'conninfo': ['zyqx']}}).create('main')
    assert 'zyqx' not in str(caught.value)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_keyword_that_psycopg_does_not_know_is_told_with_the_endpoint(timeout: Any) -> None:
    manager = DbConnectionManager({'main': {'no_such_keyword': 'zyqx', 'password': 'zyqx'}})
    with pytest.raises(psycopg.ProgrammingError, match="endpoint 'main'.*no_such_keyword") as caught:
        manager.create('main', timeout)
    assert 'zyqx' not in str(caught.value)


def test_a_conninfo_may_be_a_url(postgres: PostgresServer) -> None:
    where = postgres.parameters()
    conninfo = f"postgresql://postgres@/{ALPHA}?host={where['host']}&port={where['port']}"
    manager = DbConnectionManager({'main': {'conninfo': conninfo}})
    for timeout in (None, 5.0):
        conn = manager.create('main', timeout)
        assert type(conn) is psycopg.Connection
        assert fetch(conn, 'SELECT current_database()') == ALPHA
        manager.dispose('main', conn)


def test_credentials_that_were_rotated_are_asked_for_with_each_new_connection(postgres: PostgresServer) -> None:
    postgres.query("CREATE ROLE rotated LOGIN PASSWORD 'first'")
    rules = pathlib.Path(postgres.query('SHOW hba_file')[0][0])
    before = rules.read_text()
    rules.write_text('local all rotated scram-sha-256\n' + before)
    postgres.query('SELECT pg_reload_conf()')
    vault = ['first']
    manager = DbConnectionManager({'main': lambda: parameters(postgres, user='rotated', password=vault[-1])})
    try:
        manager.dispose('main', manager.create('main', 5))
        postgres.query("ALTER ROLE rotated PASSWORD 'second'")
        with pytest.raises(psycopg.OperationalError, match='password authentication failed'):
            manager.create('main', 5)
        vault.append('second')
        manager.dispose('main', manager.create('main', 5))
    finally:
        rules.write_text(before)
        postgres.query('DROP ROLE rotated')
        postgres.query('SELECT pg_reload_conf()')


def test_a_callable_that_returns_no_mapping_is_an_error_that_does_not_tell_what_it_returned() -> None:
    provide: Any = lambda: 'postgresql://user:zyqx@localhost/db'  # noqa: E731
    with pytest.raises(TypeError, match="parameters of endpoint 'main' must be a mapping.*not a str") as caught:
        DbConnectionManager({'main': provide}).create('main')
    assert 'zyqx' not in str(caught.value)


def test_the_time_that_a_callable_takes_counts(postgres: PostgresServer) -> None:
    def slow() -> Dict[str, Any]:
        time.sleep(0.02)
        return parameters(postgres)

    with pytest.raises(TimeoutError, match="'main'"):
        DbConnectionManager({'main': slow}).create('main', 0.01)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_refused_connection_says_where(timeout: Any) -> None:
    params = nowhere()
    with pytest.raises(psycopg.OperationalError, match=f"'main'.*{params['port']}"):
        DbConnectionManager({'main': params}).create('main', timeout)


# -- creating within a time


def test_a_server_that_never_answers_is_given_up_in_time_by_all_threads() -> None:
    before = open_descriptors()
    with silent_server() as (host, port):
        # psycopg by itself would try for longer than this test waits
        manager = DbConnectionManager({'main': {'host': host, 'port': port, 'user': 'x', 'connect_timeout': 60}})
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="'main'"):
            manager.create('main', timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        # while the server is still silent
        await_threads()
    assert open_descriptors() == before


def test_the_timeout_of_the_connect_keywords_holds_too() -> None:
    with silent_server() as (host, port):
        conninfo = f'host={host} port={port} user=x connect_timeout=2'
        with pytest.raises(psycopg.errors.ConnectionTimeout, match="'main'"):
            DbConnectionManager({'main': {'conninfo': conninfo}}).create('main', timeout=30)


@pytest.mark.parametrize('timeout, seconds', [(0.1, 2), (1.5, 3), (30, 31)])
def test_a_connect_that_is_left_alone_ends_soon_whatever_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, timeout: float, seconds: int
) -> None:
    wanted: List[Dict[str, Any]] = []

    def connect(cls: Any, **params: Any) -> None:
        wanted.append(params)
        raise psycopg.OperationalError

    monkeypatch.setattr(psycopg.Connection, 'connect', classmethod(connect))
    with pytest.raises(psycopg.OperationalError):
        DbConnectionManager({'main': {'user': 'x'}}).create('main', timeout)
    assert wanted == [{'user': 'x', 'connect_timeout': seconds}]


@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='there is no timer signal')
@pytest.mark.parametrize('timeout', [None, 10.0])
def test_an_interrupted_connect_leaves_nothing_open(brief_threads: None, timeout: Any) -> None:
    before = open_descriptors()
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with silent_server() as (host, port):
            manager = DbConnectionManager({'main': {'host': host, 'port': port, 'user': 'x'}})
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt) as caught:
                manager.create('main', timeout=timeout)
            assert time.monotonic() - started < 5
        # with what the traceback refers to still alive
        assert caught.tb
        eventually(lambda: open_descriptors() == before)
    finally:
        signal.signal(signal.SIGALRM, handler)


# -- configuring


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_each_new_connection_is_configured(postgres: PostgresServer, timeout: Any) -> None:
    def configure(conn: DbConnection) -> None:
        conn.autocommit = True
        conn.execute("SET application_name = 'configured'")

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    conn = manager.create(ALPHA, timeout)
    assert fetch(conn, 'SHOW application_name') == 'configured'
    assert conn.autocommit
    manager.dispose(ALPHA, conn)


@pytest.mark.parametrize('timeout', [None, 5.0])
@pytest.mark.parametrize('statement', ['SELECT 1', 'SELECT 1/0', 'COPY notes FROM STDIN'])
def test_a_configuration_that_is_not_finished_is_an_error_and_closes_the_connection(
    postgres: PostgresServer, timeout: Any, statement: str
) -> None:
    conns: List[DbConnection] = []

    def configure(conn: DbConnection) -> None:
        conns.append(conn)
        with contextlib.suppress(psycopg.Error):
            conn.execute(statement)

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    with pytest.raises(psycopg.ProgrammingError, match="'alpha'.*configure callback.*(transaction|under way)"):
        manager.create(ALPHA, timeout)
    assert conns[0].closed


@pytest.mark.parametrize('timeout', [None, 5.0])
@pytest.mark.parametrize('failure', [ValueError('mine'), KeyboardInterrupt()], ids=lambda exc: type(exc).__name__)
def test_a_configuration_that_fails_closes_the_connection(
    postgres: PostgresServer, timeout: Any, failure: BaseException
) -> None:
    conns: List[DbConnection] = []

    def configure(conn: DbConnection) -> None:
        conns.append(conn)
        raise failure

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    with pytest.raises(type(failure)):
        manager.create(ALPHA, timeout)
    assert conns[0].closed


def test_a_configuration_that_takes_too_long_is_cut_short(postgres: PostgresServer, brief_threads: None) -> None:
    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=lambda conn: fetch(conn, LONG))
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="'alpha'"):
        manager.create(ALPHA, timeout=0.3)
    await_threads()
    assert time.monotonic() - started < 5
    eventually(lambda: postgres.sessions() == 0)


def test_a_connection_that_is_configured_too_late_is_closed(postgres: PostgresServer, brief_threads: None) -> None:
    late = threading.Event()
    conns: List[DbConnection] = []

    def configure(conn: DbConnection) -> None:
        conns.append(conn)
        assert late.wait(10)

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    with pytest.raises(TimeoutError):
        manager.create(ALPHA, timeout=0.3)
    late.set()
    await_threads()
    assert conns[0].closed
    eventually(lambda: postgres.sessions() == 0)
