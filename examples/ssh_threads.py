"""Eight threads run commands and read files over SSH, through one pool, as two users, each an endpoint with a name."""

import concurrent.futures
import logging

import paramiko
from servers_ssh import ssh_server

from generic_connection_pool.contrib.paramiko import SshConnectionManager, UnknownHostKeyError
from generic_connection_pool.threading import ConnectionPool

logging.getLogger('paramiko').addHandler(logging.NullHandler())


def work(pool: ConnectionPool[str, paramiko.SSHClient], user: str, number: int) -> str:
    with pool.connection(user, timeout=10.0) as client:
        _, stdout, _ = client.exec_command(f'task {number}')
        # one connection carries several channels
        with client.open_sftp() as sftp, sftp.open('/motto') as file:
            return stdout.read().decode().strip() + ': ' + file.read().decode()


with ssh_server() as server:
    parameters = {
        user: {'hostname': server.host, **server.credentials(user), 'look_for_keys': False, 'allow_agent': False}
        for user in ('builder', 'reader')
    }
    # without known_hosts, a server has to be known in ~/.ssh/known_hosts
    pool = ConnectionPool(SshConnectionManager(parameters, known_hosts=server.known_hosts), max_size=2)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        answers = [threads.submit(work, pool, user, number) for number in range(10) for user in parameters]
        for answer in answers:
            print(answer.result())
    pool.close()
    print(f'{len(answers)} commands and as many files went over {server.accepted} connections')

    strict = ConnectionPool(SshConnectionManager(parameters, known_hosts=[]))
    try:
        strict.acquire('builder', timeout=10.0)
    except UnknownHostKeyError as exc:
        print(f'As it should be: {exc}')
    strict.close()
