"""Twenty tasks query two MariaDB databases through one pool, with asyncmy. One of them gives up: no harm is done."""

import asyncio

from servers_mariadb import mariadb_server

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.asyncmy import ConnectArguments, DbConnection, DbConnectionManager


async def query(pool: ConnectionPool[str, DbConnection], database: str, number: int) -> str:
    async with pool.connection(database, timeout=5.0) as conn, conn.cursor() as cursor:
        await cursor.execute('SELECT %s * %s, DATABASE(), CONNECTION_ID()', (number, number))
        (square, answered_by, session), = await cursor.fetchall()
        # variables, as all else of the session, are gone when the next user has the connection
        await cursor.execute('SET @mine = %s', (number,))
    return f'{number} squared is {square}, says {answered_by} (session {session})'


async def give_up(pool: ConnectionPool[str, DbConnection], database: str) -> None:
    async with pool.connection(database) as conn, conn.cursor() as cursor:
        await cursor.execute('SELECT SLEEP(30)')


async def main(endpoints: ConnectArguments) -> None:
    pool = ConnectionPool(DbConnectionManager(endpoints), max_size=2)
    try:
        await asyncio.wait_for(give_up(pool, 'users'), 0.1)
    except asyncio.TimeoutError:
        print('gave up on a slow query; its connection is not used again')
    answers = await asyncio.gather(*(query(pool, name, number) for number in range(10) for name in endpoints))
    print(*answers, sep='\n')
    print(f'{len(answers)} queries went over {pool.get_size()} connections')
    await pool.close()


with mariadb_server() as endpoints:
    asyncio.run(main(endpoints))
