"""The manager of PEP 249 connections with sqlite3: files and memory, each used from many threads."""

import contextlib
import pathlib
import sqlite3
import threading
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from support.crowds import crowd_of_threads
from support.servers import eventually, open_descriptors

from generic_connection_pool.contrib.dbapi import DbConnectionManager
from generic_connection_pool.threading import ConnectionPool

Manager = DbConnectionManager[sqlite3.Connection]
Pool = ConnectionPool[str, sqlite3.Connection]

#: what keeps a connection busy for as long as anybody may wait
LONG = 'WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT count(*) FROM numbers'


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """A database file with a table of notes."""
    path = tmp_path / 'notes.db'
    run(path, 'CREATE TABLE notes (note TEXT UNIQUE)')
    return path


@pytest.fixture
def manager(path: pathlib.Path) -> Manager:
    return DbConnectionManager(sqlite3, {'main': {'database': path, 'timeout': 30}})


@pytest.fixture
def conn(manager: Manager) -> Iterator[sqlite3.Connection]:
    conn = manager.create('main')
    yield conn
    manager.dispose('main', conn)


@pytest.fixture
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager, max_size=5)
    yield pool
    pool.close(timeout=5)


def run(path: pathlib.Path, sql: str) -> List[Tuple[Any, ...]]:
    """Run a statement on a connection of its own."""
    conn = sqlite3.connect(path, timeout=5)
    try:
        with conn:
            return conn.execute(sql).fetchall()
    finally:
        conn.close()


def elsewhere(function: Any) -> None:
    """Call a function in another thread, and wait for it."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


# -- creating


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_connection_can_be_used_by_any_thread(manager: Manager, timeout: 'float | None') -> None:
    conn = manager.create('main', timeout=timeout)
    answers: List[Any] = []
    elsewhere(lambda: answers.append(conn.execute('SELECT 1').fetchone()))
    assert answers == [(1,)]
    manager.dispose('main', conn)


def test_a_connection_that_is_to_stay_in_its_thread_is_refused(path: pathlib.Path) -> None:
    manager: Manager = DbConnectionManager(sqlite3, {'main': {'database': path, 'check_same_thread': True}})
    with pytest.raises(ValueError, match="endpoint 'main': check_same_thread must be False"):
        manager.create('main')


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_file_that_cannot_be_opened_is_an_error_that_names_the_endpoint(
    tmp_path: pathlib.Path, timeout: 'float | None'
) -> None:
    pool: Pool = ConnectionPool(DbConnectionManager(sqlite3, {'main': {'database': tmp_path / 'none' / 'file'}}))
    before = open_descriptors()
    with pytest.raises(sqlite3.OperationalError, match="^endpoint 'main': unable to open database file$"):
        pool.acquire('main', timeout=timeout)
    assert pool.get_size() == 0
    eventually(lambda: open_descriptors() == before)
    pool.close()


def test_an_unknown_endpoint_is_named_and_so_are_the_known(manager: Manager) -> None:
    with pytest.raises(KeyError, match="unknown endpoint 'typo'; known are: 'main'"):
        manager.create('typo')


def test_connect_arguments_are_asked_for_before_each_connect(tmp_path: pathlib.Path) -> None:
    names = iter(['first', 'second'])
    manager: Manager = DbConnectionManager(sqlite3, {'main': lambda: {'database': tmp_path / next(names)}})
    for _ in range(2):
        conn = manager.create('main', timeout=5)
        conn.execute('CREATE TABLE here (a)')
        manager.dispose('main', conn)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['first', 'second']


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_connect_arguments_of_the_wrong_kind_are_told_by_their_kind(timeout: 'float | None') -> None:
    with pytest.raises(TypeError, match=r"connect_args must be a mapping of connect keywords by endpoint, not a list"):
        DbConnectionManager(sqlite3, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"connect_args\['main'\] must be a mapping .* not a str"):
        DbConnectionManager(sqlite3, {'main': 'my-secret'})  # type: ignore[dict-item]
    wrong: Any = lambda: 'my-secret'  # noqa: E731
    manager: Manager = DbConnectionManager(sqlite3, {'main': wrong})
    with pytest.raises(TypeError, match="callable of endpoint 'main' must return a mapping of keywords, not a str"):
        manager.create('main', timeout)


@pytest.mark.parametrize('name', ['ping', 'configure', 'reset'])
def test_hooks_of_the_wrong_kind_are_told_by_their_kind(name: str) -> None:
    wrong: Dict[str, Any] = {name: 3}
    with pytest.raises(TypeError, match=f'{name} must be None or a callable, not a int'):
        DbConnectionManager(sqlite3, {}, **wrong)


def test_what_is_no_driver_is_told_so() -> None:
    with pytest.raises(TypeError, match='driver must be a PEP 249 module: the module that it is lacks connect, '):
        DbConnectionManager(threading, {})  # type: ignore[arg-type]


def test_each_new_connection_is_configured(path: pathlib.Path) -> None:
    def configure(conn: sqlite3.Connection) -> None:
        conn.execute('PRAGMA foreign_keys = ON')
        conn.execute("INSERT INTO notes VALUES ('configured')")

    manager: Manager = DbConnectionManager(sqlite3, {'main': {'database': path}}, configure=configure)
    conn = manager.create('main')
    assert conn.execute('PRAGMA foreign_keys').fetchone() == (1,)
    manager.dispose('main', conn)
    assert run(path, 'SELECT * FROM notes') == [('configured',)]


@pytest.mark.parametrize('error', [ValueError('no'), KeyboardInterrupt()])
@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_connection_that_cannot_be_configured_is_closed(
    path: pathlib.Path, error: BaseException, timeout: 'float | None'
) -> None:
    before = open_descriptors()
    seen: List[sqlite3.Connection] = []

    def configure(conn: sqlite3.Connection) -> None:
        conn.execute('SELECT * FROM notes')
        seen.append(conn)
        raise error

    manager: Manager = DbConnectionManager(sqlite3, {'main': {'database': path}}, configure=configure)
    with pytest.raises(type(error)):
        manager.create('main', timeout)
    with pytest.raises(sqlite3.ProgrammingError, match='closed database'):
        seen[0].execute('SELECT 1')
    assert open_descriptors() == before


# -- checking


def test_an_idle_connection_is_found_alive_time_and_again(manager: Manager, conn: sqlite3.Connection) -> None:
    for timeout in (0, 1.0, None):
        assert manager.check_aliveness('main', conn, timeout)
    assert not conn.in_transaction


def test_a_connection_closed_by_its_user_is_found_dead_and_nobody_complains(
    pool: Pool, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    with pool.connection('main') as conn:
        conn.close()
    assert not manager.check_aliveness('main', conn, 1.0)
    assert not manager.is_reusable('main', conn, ValueError())
    with pool.connection('main') as again:
        assert again is not conn
        assert again.execute('SELECT 1').fetchone() == (1,)
    assert not caplog.records


def test_a_ping_may_be_a_statement_or_a_function(path: pathlib.Path) -> None:
    pinged: List[Any] = []
    for ping, answer in (
        ('SELECT count(*) FROM notes', True), ('SELECT * FROM nowhere', False), (pinged.append, True),
        (lambda conn: conn.execute('wrong'), False), ('PRAGMA user_version = 3', True),
    ):  # fmt: skip
        manager: Manager = DbConnectionManager(sqlite3, {'main': {'database': path}}, ping=ping)
        conn = manager.create('main')
        assert manager.check_aliveness('main', conn, 1.0) is answer, ping
        manager.dispose('main', conn)
    assert len(pinged) == 1


# -- releasing


def test_a_connection_is_reused(pool: Pool) -> None:
    seen = set()
    for _ in range(3):
        with pool.connection('main') as conn:
            seen.add(conn)
            assert conn.execute('SELECT 1').fetchone() == (1,)
    assert len(seen) == 1


def test_what_is_committed_stays_and_a_transaction_left_open_is_rolled_back(pool: Pool, path: pathlib.Path) -> None:
    with pool.connection('main') as conn:
        conn.execute("INSERT INTO notes VALUES ('kept')")
        conn.commit()
        conn.execute("INSERT INTO notes VALUES ('lost')")
    # its lock is gone, too
    run(path, "INSERT INTO notes VALUES ('other')")
    with pool.connection('main') as again:
        assert again is conn
        assert not again.in_transaction
    assert sorted(run(path, 'SELECT * FROM notes')) == [('kept',), ('other',)]


def test_a_transaction_begun_by_hand_in_autocommit_mode_is_rolled_back(pool: Pool, path: pathlib.Path) -> None:
    with pool.connection('main') as conn:
        conn.isolation_level = None
        conn.execute('BEGIN IMMEDIATE')
        conn.execute("INSERT INTO notes VALUES ('lost')")
    run(path, "INSERT INTO notes VALUES ('other')")
    assert run(path, 'SELECT * FROM notes') == [('other',)]


@pytest.mark.skipif(not hasattr(sqlite3, 'LEGACY_TRANSACTION_CONTROL'), reason='autocommit is new in Python 3.12')
@pytest.mark.parametrize('mode', [True, False])
def test_autocommit_is_restored_and_what_was_left_open_with_it_rolled_back(
    pool: Pool, path: pathlib.Path, mode: bool
) -> None:
    with pool.connection('main') as conn:
        before = getattr(conn, 'autocommit')
        setattr(conn, 'autocommit', mode)
        if mode:
            conn.execute('BEGIN')
        conn.execute("INSERT INTO notes VALUES ('lost')")
    run(path, "INSERT INTO notes VALUES ('other')")
    with pool.connection('main') as again:
        assert again is conn
        assert getattr(again, 'autocommit') == before
        again.execute("INSERT INTO notes VALUES ('kept')")
        again.commit()
    assert sorted(run(path, 'SELECT * FROM notes')) == [('kept',), ('other',)]


@pytest.mark.skipif(not hasattr(sqlite3, 'LEGACY_TRANSACTION_CONTROL'), reason='autocommit is new in Python 3.12')
def test_connections_that_are_always_in_a_transaction_are_pooled_too(path: pathlib.Path) -> None:
    arguments = {'main': {'database': path, 'autocommit': False}}
    with_pool: Pool = ConnectionPool(DbConnectionManager(sqlite3, arguments))
    for note in ('kept', 'kept too'):
        with with_pool.connection('main', timeout=5) as conn:
            conn.execute('INSERT INTO notes VALUES (?)', (note,))
            conn.commit()
            conn.execute("INSERT INTO notes VALUES ('lost')")
    with_pool.close()
    assert run(path, 'SELECT * FROM notes ORDER BY 1') == [('kept',), ('kept too',)]


def test_what_a_user_has_set_on_the_connection_is_not_left_to_the_next(pool: Pool) -> None:
    with pool.connection('main') as conn:
        before = conn.isolation_level, conn.row_factory, conn.text_factory
        conn.isolation_level = None
        conn.row_factory = sqlite3.Row
        conn.text_factory = bytes
    with pool.connection('main') as again:
        assert again is conn
        assert (again.isolation_level, again.row_factory, again.text_factory) == before


def test_what_only_its_user_knows_of_is_reset_by_a_function(path: pathlib.Path) -> None:
    def reset(conn: sqlite3.Connection) -> None:
        conn.execute('PRAGMA foreign_keys = OFF')
        conn.execute("INSERT INTO notes SELECT 'reset ' || count(*) FROM notes")

    pool: Pool = ConnectionPool(DbConnectionManager(sqlite3, {'main': {'database': path}}, reset=reset))
    with pool.connection('main') as conn:
        conn.execute('PRAGMA foreign_keys = ON')
    with pool.connection('main') as again:
        assert again is conn
        assert again.execute('PRAGMA foreign_keys').fetchone() == (0,)
    pool.close()
    assert run(path, 'SELECT * FROM notes') == [('reset 0',), ('reset 1',)]


@pytest.mark.parametrize('error, is_told', [(sqlite3.OperationalError('no'), False), (ValueError('no'), True)])
def test_a_connection_that_cannot_be_reset_is_not_used_again(
    path: pathlib.Path, error: Exception, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def reset(conn: sqlite3.Connection) -> None:
        raise error

    pool: Pool = ConnectionPool(DbConnectionManager(sqlite3, {'main': {'database': path}}, reset=reset))
    conn = pool.acquire('main')
    if is_told:
        with pytest.raises(ValueError):
            pool.release(conn, 'main')
    else:
        pool.release(conn, 'main')
        assert "a connection to 'main' was closed" in caplog.text
    again = pool.acquire('main')
    assert again is not conn
    with contextlib.suppress(ValueError):
        pool.release(again, 'main')
    pool.close()


FAILURES: Dict[Any, bool] = {
    ValueError(): True,
    sqlite3.IntegrityError(): True,
    sqlite3.ProgrammingError(): True,
    sqlite3.OperationalError(): False,
    sqlite3.InterfaceError(): False,
    sqlite3.InternalError(): False,
    TimeoutError(): False,
    ConnectionResetError(): False,
    KeyboardInterrupt(): False,
    GeneratorExit(): False,
}


@pytest.mark.parametrize('failure', FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_tells_whether_a_connection_can_go_on(
    manager: Manager, conn: sqlite3.Connection, failure: BaseException
) -> None:
    assert manager.is_reusable('main', conn, failure) is FAILURES[failure]


def test_after_a_violated_constraint_the_connection_is_rolled_back_and_reused(pool: Pool, path: pathlib.Path) -> None:
    with pytest.raises(sqlite3.IntegrityError), pool.connection('main') as conn:
        conn.execute("INSERT INTO notes VALUES ('twice')")
        conn.execute("INSERT INTO notes VALUES ('twice')")
    with pool.connection('main') as again:
        assert again is conn
    assert run(path, 'SELECT * FROM notes') == []


# -- closing, and many threads


def test_disposing_does_not_mind_a_connection_that_is_closed(manager: Manager, conn: sqlite3.Connection) -> None:
    manager.dispose('main', conn)
    manager.dispose('main', conn)


def test_a_pool_closed_by_force_interrupts_a_query(pool: Pool) -> None:
    outcome: List[BaseException] = []
    runs = threading.Event()

    def use() -> None:
        conn = pool.acquire('main')
        conn.set_progress_handler(runs.set, 1000)
        try:
            conn.execute(LONG).fetchone()
        except sqlite3.Error as exc:
            outcome.append(exc)
        finally:
            conn.close()

    user = threading.Thread(target=use)
    user.start()
    assert runs.wait(10)
    pool.close(timeout=0.02)
    user.join(10)
    assert not user.is_alive()
    assert isinstance(outcome[0], sqlite3.OperationalError)


def test_fifty_threads_share_five_connections_to_a_file(pool: Pool, path: pathlib.Path) -> None:
    def ask(question: str) -> Tuple[str, str]:
        with pool.connection('main', timeout=60) as conn:
            assert not conn.in_transaction
            (answer,), = conn.execute("SELECT ? || '!'", (question,))
            if question.endswith('-0'):
                with conn:
                    conn.execute('INSERT INTO notes VALUES (?)', (question,))
        assert pool.get_size() <= 5
        return question + '!', answer

    crowd_of_threads(ask, threads=50, questions=10)
    assert len(run(path, 'SELECT * FROM notes')) == 50


def test_fifty_threads_share_five_connections_to_one_database_in_memory() -> None:
    before = open_descriptors()
    where = {'database': 'file:gcp-test?mode=memory&cache=shared', 'uri': True}
    # the database lives as long as one connection to it does
    anchor = sqlite3.connect(**where)  # type: ignore[call-overload]
    anchor.executescript("CREATE TABLE answers (answer TEXT); INSERT INTO answers VALUES ('!')")
    pool: Pool = ConnectionPool(DbConnectionManager(sqlite3, {'main': where}), max_size=5)

    def ask(question: str) -> Tuple[str, str]:
        with pool.connection('main', timeout=60) as conn:
            (answer,), = conn.execute('SELECT ? || answer FROM answers', (question,))
        assert pool.get_size() <= 5
        return question + '!', answer

    crowd_of_threads(ask, threads=50, questions=10)
    pool.close()
    anchor.close()
    assert open_descriptors() == before


def test_connections_to_memory_that_is_not_shared_are_databases_of_their_own() -> None:
    pool: Pool = ConnectionPool(DbConnectionManager(sqlite3, {'main': {'database': ':memory:'}}))
    with pool.connection('main') as one, pool.connection('main') as two:
        one.execute('CREATE TABLE notes (note TEXT)')
        with pytest.raises(sqlite3.OperationalError, match='no such table'):
            two.execute('SELECT * FROM notes')
    pool.close()
