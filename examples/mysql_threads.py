"""Eight threads query two MariaDB databases through one pool, with any PEP 249 driver: here it is PyMySQL."""

import concurrent.futures

import pymysql
from servers_mariadb import mariadb_server

from generic_connection_pool.contrib.dbapi import DbConnectionManager
from generic_connection_pool.threading import ConnectionPool

with mariadb_server() as endpoints:
    # {'users': {'host': ..., 'database': 'users', ...}, 'orders': {...}}
    pool = ConnectionPool(DbConnectionManager(pymysql, endpoints), max_size=2)

    def query(database: str, number: int) -> str:
        with pool.connection(database, timeout=5.0) as conn, conn.cursor() as cursor:
            cursor.execute('SELECT %s * %s, DATABASE(), CONNECTION_ID()', (number, number))
            (square, answered_by, session), = cursor.fetchall()
        # a transaction that is still open, as this one, is rolled back when the connection comes back
        return f'{number} squared is {square}, says {answered_by} (session {session})'

    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        answers = [threads.submit(query, database, number) for number in range(10) for database in endpoints]
        for answer in answers:
            print(answer.result())
    print(f'{len(answers)} queries went over {pool.get_size()} connections')
    pool.close()
