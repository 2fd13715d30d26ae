"""Eight threads query three databases through one pool, each database being an endpoint with a name."""

import concurrent.futures

import psycopg2.extensions
from servers import postgres_server

from generic_connection_pool.contrib.psycopg2 import DbConnectionManager
from generic_connection_pool.threading import ConnectionPool


def query(pool: ConnectionPool[str, psycopg2.extensions.connection], database: str, number: int) -> str:
    with pool.connection(database, timeout=5.0) as conn, conn.cursor() as cursor:
        cursor.execute('SELECT %s * %s, current_database(), pg_backend_pid()', (number, number))
        (square, answered_by, process), = cursor.fetchall()
    # a transaction that is still open, as this one, is rolled back when the connection comes back
    return f'{number} squared is {square}, says {answered_by} (server process {process})'


with postgres_server() as server:
    # {'users': {'host': ..., 'database': 'users', ...}, 'orders': {...}, 'events': {...}}
    pool = ConnectionPool(DbConnectionManager(server.dsn_params), max_size=2)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        answers = [
            threads.submit(query, pool, database, number) for number in range(10) for database in server.dsn_params
        ]
        for answer in answers:
            print(answer.result())
    print(f'{len(answers)} queries went over {pool.get_size()} connections')
    pool.close()
