"""Eight threads query three databases with psycopg 3 through one pool, each database being an endpoint with a name."""

import concurrent.futures

from servers import postgres_server
from servers_psycopg import psycopg_parameters

from generic_connection_pool.contrib.psycopg import DbConnection, DbConnectionManager
from generic_connection_pool.threading import ConnectionPool


def configure(conn: DbConnection) -> None:
    conn.execute("SET application_name = 'psycopg_threads.py'")
    conn.commit()


def query(pool: ConnectionPool[str, DbConnection], database: str, number: int) -> str:
    with pool.connection(database, timeout=5.0) as conn:
        answer = conn.execute('SELECT %s * %s, current_database(), pg_backend_pid()', (number, number))
        ((square, answered_by, process),) = answer.fetchall()
    # a transaction that is still open, as this one, is rolled back when the connection comes back
    return f'{number} squared is {square}, says {answered_by} (server process {process})'


with postgres_server() as server:
    # {'users': {'host': ..., 'dbname': 'users', ...}, 'orders': ...}; a callable in place of a dict is asked for the
    # parameters of each new connection, so that a password may change
    dsn_params = psycopg_parameters(server)
    pool = ConnectionPool(DbConnectionManager(dsn_params, configure=configure), max_size=2)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        answers = [threads.submit(query, pool, database, number) for number in range(10) for database in dsn_params]
        for answer in answers:
            print(answer.result())
    print(f'{len(answers)} queries went over {pool.get_size()} connections')
    pool.close()
