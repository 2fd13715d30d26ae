"""What the tests of the two managers of psycopg 3 share. Imported only where psycopg is installed."""

from typing import Any, Dict, Iterator, List

import psycopg
from support.postgres import DATABASES, PostgresServer
from support.servers import refusing_port

ALPHA = DATABASES[0]

#: a query that lasts until somebody ends it
LONG = 'SELECT 1 FROM pg_sleep(30)'

#: conninfo strings, of whose passwords ``zy`` and ``qx`` are parts, that are not read as they are meant, if at all
MALFORMED = (
    'postgresql://user:zy%%qx@localhost/db',
    'postgresql://user:zy/qx@localhost/db',
    'postgresql://user:12/zyqx@localhost/db',
    'postgresql://user:zy@qx@localhost/db',
    'postgresql://user:zy@qx@127.0.0.1,127.0.0.2/db',
    'postgresql://user@localhost:zyqx/db',
    'postgres//user:zy-qx@localhost/db',
    'host=localhost password=zy qx',
    "host=localhost password='zyqx",
    'host=localhost password=my zyqx=1',
)


def parameters(postgres: PostgresServer, database: str = ALPHA, **more: Any) -> Dict[str, Any]:
    """The connect keywords for a database, as psycopg 3 calls them."""
    params = postgres.parameters(database, **more)
    params['dbname'] = params.pop('database')
    return params


def nowhere() -> Dict[str, Any]:
    """Connect keywords that lead to a port that nobody listens at."""
    return {'host': '127.0.0.1', 'port': refusing_port(), 'user': 'x', 'dbname': 'x'}


def fetch(conn: 'psycopg.Connection[Any]', sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    row = conn.execute(sql, args or None).fetchone()
    assert row is not None
    return row[0]


async def fetch_async(conn: 'psycopg.AsyncConnection[Any]', sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    row = await (await conn.execute(sql, args or None)).fetchone()
    assert row is not None
    return row[0]


class UpperCase(psycopg.adapt.Loader):
    """Loads text as nobody expects it."""

    def load(self, data: Any) -> str:
        return bytes(data).decode().upper()


def errors() -> Iterator[Any]:
    """Yield what a block may raise, and whether its connection can be used by others afterwards."""
    yield ValueError(), True
    yield psycopg.ProgrammingError(), True
    yield psycopg.DataError(), True
    yield psycopg.errors.UniqueViolation(), True
    yield psycopg.errors.DeadlockDetected(), True
    yield psycopg.errors.QueryCanceled(), True
    yield psycopg.OperationalError(), False
    yield psycopg.errors.ConnectionFailure(), False
    yield psycopg.errors.PipelineAborted(), False
    yield psycopg.InternalError(), False
    yield psycopg.InterfaceError(), False
    yield TimeoutError(), False
    yield ConnectionResetError(), False
    yield KeyboardInterrupt(), False
    yield GeneratorExit(), False
    group: Any = __builtins__['ExceptionGroup'] if 'ExceptionGroup' in __builtins__ else None  # type: ignore[index]
    if group is not None:
        yield group('several', [ValueError()]), False


ERRORS: List[Any] = list(errors())
