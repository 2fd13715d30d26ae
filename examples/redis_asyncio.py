"""Fifty tasks race for a counter in Redis through one pool of five connections; some are cancelled half-way."""

import asyncio

from servers_redis import redis_server

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.redis_async import RedisConnection, RedisConnectionManager, client, execute


async def add(pool: ConnectionPool[str, RedisConnection], task: int) -> int:
    async with pool.connection('cache', timeout=5.0) as conn:
        if task % 10 == 9:
            # nobody will ever push to that list: the task is cancelled, and its reply is left to nobody
            await client(conn).blpop([f'nothing:{task}'], 60)
        counted: int = await execute(conn, 'INCR', 'counter')
        # each reply belongs to the question of this task
        assert await execute(conn, 'ECHO', task) == str(task).encode()
        return counted


async def main(url: str) -> None:
    pool = ConnectionPool(RedisConnectionManager({'cache': url}), max_size=5)
    tasks = [asyncio.ensure_future(add(pool, number)) for number in range(50)]
    while True:
        done, waiting = await asyncio.wait(tasks, timeout=0.2)
        if not waiting:
            break
        for task in tasks[9::10]:
            task.cancel()
    counts = [task.result() for task in done if not task.cancelled()]
    print(f'{len(counts)} tasks counted to {max(counts)}, {50 - len(counts)} were cancelled while they waited')
    async with pool.connection('cache') as conn:
        print(f'the server says {await execute(conn, "GET", "counter")!r}, over {pool.get_size()} connections')
    await pool.close()


with redis_server() as url:
    asyncio.run(main(url))
