"""Fifty tasks query three databases with psycopg 3 through one pool, each database being an endpoint with a name.

On Windows psycopg needs another event loop than asyncio's default: see docs/managers/psycopg.md.
"""

import asyncio

from servers import PostgresServer, postgres_server
from servers_psycopg import psycopg_parameters

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.psycopg_async import DbConnection, DbConnectionManager


async def discard_all(conn: DbConnection) -> None:
    # it cannot be done in a transaction; what is set here does not last
    await conn.set_autocommit(True)
    await conn.execute('DISCARD ALL')


async def query(pool: ConnectionPool[str, DbConnection], database: str, number: int) -> str:
    async with pool.connection(database, timeout=5.0) as conn:
        await conn.execute("SELECT set_config('my.number', %s, false)", (str(number),))
        answer = await conn.execute("SELECT current_setting('my.number'), current_database(), pg_backend_pid()")
        ((setting, answered_by, process),) = await answer.fetchall()
    # the transaction is rolled back when the connection comes back, and here everything else is discarded as well
    return f'{number} is {setting}, says {answered_by} (server process {process})'


async def main(server: PostgresServer) -> None:
    dsn_params = psycopg_parameters(server)
    pool = ConnectionPool(DbConnectionManager(dsn_params, reset=discard_all), max_size=2)
    answers = await asyncio.gather(
        *(query(pool, list(dsn_params)[number % len(dsn_params)], number) for number in range(50))
    )
    print(*answers, sep='\n')
    print(f'{len(answers)} queries went over {pool.get_size()} connections')
    await pool.close()


with postgres_server() as server:
    asyncio.run(main(server))
