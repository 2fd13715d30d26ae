"""No password reaches a log record, a warning, an exception or a repr by our doing, whatever fails."""

import asyncio
import contextlib
import importlib
import logging
from typing import Any, Dict, Iterator, List

import pytest
from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threads_pools
from support.postgres import USER_WITH_PASSWORD, PostgresServer
from support.servers import refusing_port
from support.witness import SECRET, Witness, witness

__all__ = ('witness',)

pytest.importorskip('asyncpg', exc_type=ImportError)
pytest.importorskip('psycopg2', exc_type=ImportError)
AsyncpgManager = importlib.import_module('generic_connection_pool.contrib.asyncpg').DbConnectionManager
Psycopg2Manager = importlib.import_module('generic_connection_pool.contrib.psycopg2').DbConnectionManager


def test_the_witness_hears_secrets(witness: Witness) -> None:
    logging.getLogger('generic_connection_pool').debug('connecting with %s', {'password': SECRET})
    with pytest.raises(AssertionError):
        witness.check()
    witness.stream.truncate(0)
    witness.hear(ValueError(SECRET))
    with pytest.raises(AssertionError):
        witness.check()
    witness.heard.clear()


@contextlib.contextmanager
def closing(manager: Any, **config: Any) -> 'Iterator[threads_pools.ConnectionPool[Any, Any]]':
    pool = threads_pools.ConnectionPool(manager, **config)
    yield pool
    pool.close(0)


def bad_parameters(postgres: PostgresServer) -> Dict[str, Dict[str, Any]]:
    """Connect keywords with which connecting fails, each in its own way."""
    where = postgres.parameters()
    host, port = where['host'], where['port']
    return {
        'wrong password': postgres.parameters(user=USER_WITH_PASSWORD, password=SECRET),
        'wrong password in dsn': {'dsn': f'postgresql://{USER_WITH_PASSWORD}:{SECRET}@/alpha?host={host}&port={port}'},
        'refused': {'dsn': f'postgresql://somebody:{SECRET}@127.0.0.1:{refusing_port()}/alpha'},
        'malformed dsn': {'dsn': f'postgresql://somebody:{SECRET}/x@127.0.0.1/alpha'},
        'malformed port': {'dsn': f'postgresql://somebody@127.0.0.1:{SECRET}/alpha'},
        'unknown keyword': {'host': host, 'port': port, 'no_such_keyword': SECRET, 'password': SECRET},
        'wrong types': {'host': host, 'port': port, 'user': 'postgres', 'password': [SECRET], 'database': 'alpha'},
        'no such database': postgres.parameters('nowhere', password=SECRET),
    }


def test_no_failed_connect_of_psycopg2_tells_the_password(postgres: PostgresServer, witness: Witness) -> None:
    manager = Psycopg2Manager(bad_parameters(postgres))
    with closing(manager) as pool:
        for endpoint in [*manager._dsn_params, 'unknown']:
            for timeout in (None, 5.0):
                try:
                    pool.release(pool.acquire(endpoint, timeout), endpoint)
                except Exception as exc:
                    witness.hear(exc)
                else:
                    assert endpoint in ('no such database', 'wrong types'), endpoint
        witness.hear(manager, pool, pool.connection('refused'))


async def test_no_failed_connect_of_asyncpg_tells_the_password(postgres: PostgresServer, witness: Witness) -> None:
    manager = AsyncpgManager(bad_parameters(postgres))
    pool = asyncio_pools.ConnectionPool(manager)
    for endpoint in [*manager._dsn_params, 'unknown']:
        for timeout in (None, 5.0):
            try:
                await pool.release(await pool.acquire(endpoint, timeout), endpoint)
            except Exception as exc:
                witness.hear(exc)
            else:
                assert endpoint == 'wrong types', endpoint
    witness.hear(manager, pool, pool.connection('refused'))
    await pool.close()


class Talkative:
    """A connection or manager whose repr tells all."""

    password = SECRET

    def __repr__(self) -> str:
        return f'{type(self).__name__}(password={self.password!r})'


class ThreadsManager(Talkative, threads_pools.BaseConnectionManager[Any, Any]):
    def create(self, endpoint: Any, timeout: Any = None) -> Any:
        return Talkative()

    def dispose(self, endpoint: Any, conn: Any, timeout: Any = None) -> None:
        raise OSError('the disposal failed')


class AsyncManager(Talkative, asyncio_pools.BaseConnectionManager[Any, Any]):
    async def create(self, endpoint: Any) -> Any:
        return Talkative()

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        raise OSError('the disposal failed')


def test_no_failure_of_a_threads_pool_tells_of_its_manager_or_connections(witness: Witness) -> None:
    make: Any = threads_pools.ConnectionPool
    with closing(ThreadsManager(), max_size=1, min_idle=0, idle_timeout=0) as pool:
        conn = pool.acquire('a')
        for failing in (
            lambda: pool.acquire('a', 0.01), lambda: pool.release(conn, 'b'), lambda: pool.release(Talkative(), 'a'),
            lambda: make(AsyncManager()), lambda: make(Talkative()),
            lambda: threads_pools.ConnectionPool(ThreadsManager(), max_size=0),
        ):  # fmt: skip
            with pytest.raises(Exception) as caught:
                failing()
            witness.hear(caught.value)
        witness.hear(pool, pool.connection('a'))
        pool.release(conn, 'a')
    assert 'disposing of a connection' in witness.stream.getvalue()
    del pool
    threads_pools.ConnectionPool(ThreadsManager()).acquire('a')  # left open: warns
    with closing(ThreadsManager(), background_collector=True, min_idle=0, idle_timeout=0) as pool, pool.connection('a'):
        pass


async def test_no_failure_of_an_asyncio_pool_tells_of_its_manager_or_connections(witness: Witness) -> None:
    asyncio.get_running_loop().set_debug(True)
    pool: Any = asyncio_pools.ConnectionPool(AsyncManager(), max_size=1, min_idle=0, idle_timeout=0)
    conn = await pool.acquire('a')
    for failing in (
        lambda: pool.acquire('a', 0.01), lambda: pool.release(conn, 'b'), lambda: pool.release(Talkative(), 'a'),
    ):  # fmt: skip
        awaitable = failing()
        with pytest.raises(Exception) as caught:
            await awaitable
        witness.hear(caught.value, awaitable)
    wrong: List[Any] = [ThreadsManager(), Talkative()]
    for manager in wrong:
        with pytest.raises(TypeError) as refused:
            asyncio_pools.ConnectionPool(manager)
        witness.hear(refused.value)
    witness.hear(pool, pool.connection('a'))
    await pool.release(conn, 'a')
    await pool.close()
    assert 'disposing of a connection' in witness.stream.getvalue()


@pytest.mark.parametrize('cls', [Psycopg2Manager, AsyncpgManager])
@pytest.mark.parametrize('wrong', [
    f'postgresql://somebody:{SECRET}@localhost', [SECRET], SECRET, None,
    {'main': f'postgresql://a:{SECRET}@h'}, {'main': SECRET},
], ids=['dsn', 'list', 'password', 'nothing', 'dsn by name', 'password by name'])  # fmt: skip
def test_parameters_of_a_wrong_kind_are_refused_without_telling_them(cls: Any, wrong: Any, witness: Witness) -> None:
    with pytest.raises(TypeError, match='dsn_params') as caught:
        cls(wrong)
    witness.hear(caught.value)


def test_a_session_that_cannot_be_cleaned_up_is_logged_without_its_password(
    postgres: PostgresServer, witness: Witness
) -> None:
    manager = Psycopg2Manager({'main': postgres.parameters(password=SECRET)})
    with closing(manager) as pool:
        conn = pool.acquire('main')
        with conn.cursor() as cursor:
            cursor.execute('SELECT 1')
        postgres.kill(conn.info.backend_pid)
        witness.hear(conn)
        pool.release(conn, 'main')
    assert 'could not be cleaned up' in witness.stream.getvalue()
