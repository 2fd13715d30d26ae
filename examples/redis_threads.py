"""Eight threads count words in Redis through one pool of three connections."""

import concurrent.futures

from servers_redis import redis_server

from generic_connection_pool.contrib.redis import RedisConnection, RedisConnectionManager, client, execute
from generic_connection_pool.threading import ConnectionPool

TEXT = 'the quick brown fox jumps over the lazy dog while the slow red hen watches the fox'


def count(pool: ConnectionPool[str, RedisConnection], word: str) -> str:
    with pool.connection('words', timeout=5.0) as conn:
        # one command and its reply ...
        number = execute(conn, 'CLIENT', 'ID')
        # ... or all that redis-py has to offer, over this one connection
        with client(conn).pipeline() as pipeline:
            pipeline.hincrby('words', word, 1)
            pipeline.sadd('letters', *word)
            seen, _ = pipeline.execute()
        # whatever is done to the session does not reach the next user: it is reset when the connection comes back
        execute(conn, 'SELECT', 7)
    return f'{word!r} was seen {seen} times (connection {number})'


with redis_server() as url:
    # database 2 of that server is the endpoint 'words'; keywords as of redis.Redis() or a callable do as well
    pool = ConnectionPool(RedisConnectionManager({'words': f'{url}/2'}), max_size=3)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        for line in threads.map(lambda word: count(pool, word), TEXT.split()):
            print(line)
    with pool.connection('words') as conn:
        print(f'{execute(conn, "SCARD", "letters")} letters were used, over {pool.get_size()} connections')
    pool.close()
