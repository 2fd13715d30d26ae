"""The managers of PostgreSQL connections for threads, of which much holds alike."""

import importlib
from typing import Any, Callable, Dict, NamedTuple

import pytest
from support.postgres import DATABASES, PostgresServer

from generic_connection_pool.threading import BaseConnectionManager

Manager = BaseConnectionManager[str, Any]


class Driver(NamedTuple):
    """A manager with the driver whose connections are its own."""

    #: with the classes of errors
    module: Any
    #: makes a manager of the connect keywords of all endpoints
    manage: Callable[[Dict[str, Any]], Manager]
    #: what the driver calls the name of a database
    database_keyword: str
    #: whether the ``BEGIN`` of a transaction is sent along with its first statement
    begins_along: bool

    def keywords(self, postgres: PostgresServer, database: str = DATABASES[0], **more: Any) -> Dict[str, Any]:
        """The connect keywords for a database."""
        keywords = postgres.parameters(database, **more)
        keywords[self.database_keyword] = keywords.pop('database')
        return keywords

    def error(self, name: str) -> Any:
        """The class of the errors that PostgreSQL calls by a name."""
        return getattr(importlib.import_module(f'{self.module.__name__}.errors'), name)


def psycopg2_driver() -> Driver:
    psycopg2 = pytest.importorskip('psycopg2', exc_type=ImportError)
    from generic_connection_pool.contrib.psycopg2 import DbConnectionManager

    return Driver(psycopg2, DbConnectionManager, 'database', begins_along=True)


def psycopg_driver() -> Driver:
    psycopg = pytest.importorskip('psycopg', exc_type=ImportError)
    from generic_connection_pool.contrib.psycopg import DbConnectionManager

    return Driver(psycopg, DbConnectionManager, 'dbname', begins_along=False)


def dbapi_driver() -> Driver:
    psycopg2 = pytest.importorskip('psycopg2', exc_type=ImportError)
    from generic_connection_pool.contrib.dbapi import DbConnectionManager

    return Driver(psycopg2, lambda keywords: DbConnectionManager(psycopg2, keywords), 'database', begins_along=True)


#: what provides each of them, or skips the test if it is not installed
DRIVERS: Dict[str, Callable[[], Driver]] = {
    'psycopg2': psycopg2_driver, 'psycopg': psycopg_driver, 'dbapi': dbapi_driver,
}  # fmt: skip


def execute(conn: Any, sql: str) -> None:
    """Run a statement."""
    with conn.cursor() as cursor:
        cursor.execute(sql)


def fetch(conn: Any, sql: str) -> Any:
    """Run a query and return the first value of its answer."""
    with conn.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]
