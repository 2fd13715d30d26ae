"""A hundred tasks run commands over SSH, through one pool; each new connection is opened with the latest password."""

import asyncio
from typing import Any, Dict

import asyncssh
from servers_ssh import SshServer, ssh_server

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.asyncssh import SshConnectionManager


async def work(pool: ConnectionPool[str, asyncssh.SSHClientConnection], user: str, number: int) -> str:
    async with pool.connection(user, timeout=10.0) as conn:
        answer = await conn.run(f'task {number}', check=True)
        return str(answer.stdout).strip()


async def main(server: SshServer) -> None:
    async def parameters(user: str) -> Dict[str, Any]:
        # from wherever passwords are kept, and changed now and then
        return {'host': server.host, **server.credentials(user), 'client_keys': None, 'config': None}

    # without known_hosts, a server has to be known in ~/.ssh/known_hosts
    manager: SshConnectionManager[str] = SshConnectionManager(parameters, known_hosts=server.known_hosts)
    pool = ConnectionPool(manager, max_size=3)
    answers = await asyncio.gather(
        *(work(pool, user, number) for number in range(50) for user in ('builder', 'reader'))
    )
    await pool.close()
    print(*answers, sep='\n')
    print(f'{len(answers)} commands went over {server.accepted} connections')


with ssh_server() as server:
    asyncio.run(main(server))
