"""Eight threads write to one SQLite file, and read from a database in memory, through one pool."""

import concurrent.futures
import contextlib
import pathlib
import sqlite3
import tempfile

from generic_connection_pool.contrib.dbapi import DbConnectionManager
from generic_connection_pool.threading import ConnectionPool


def configure(conn: sqlite3.Connection) -> None:
    conn.execute('PRAGMA journal_mode = WAL').close()


MEMORY = 'file:prices?mode=memory&cache=shared'

with tempfile.TemporaryDirectory(prefix='gcp-example-') as directory:
    # a shared database in memory is there as long as somebody is connected to it
    with contextlib.closing(sqlite3.connect(MEMORY, uri=True)) as anchor:
        anchor.executescript("CREATE TABLE prices (name TEXT, price INT); INSERT INTO prices VALUES ('tea', 3)")
        manager = DbConnectionManager(sqlite3, {
            'orders': {'database': pathlib.Path(directory, 'orders.db'), 'timeout': 30.0},
            'prices': {'database': MEMORY, 'uri': True},
        }, configure=configure)  # fmt: skip
        pool = ConnectionPool(manager, max_size=3)
        with pool.connection('orders') as conn, conn:
            conn.execute('CREATE TABLE orders (customer INT, total INT)')

        def order(customer: int) -> None:
            with pool.connection('prices', timeout=5.0) as prices:
                (price,), = prices.execute("SELECT price FROM prices WHERE name = 'tea'")
            with pool.connection('orders', timeout=60.0) as orders, orders:
                orders.execute('INSERT INTO orders VALUES (?, ?)', (customer, customer * price))

        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
            list(threads.map(order, range(100)))
        with pool.connection('orders') as conn:
            (count, total), = conn.execute('SELECT count(*), sum(total) FROM orders')
        print(f'{count} orders over {total} in all went over {pool.get_size()} connections')
        pool.close()
