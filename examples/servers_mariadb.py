"""A MariaDB server for the examples, on loopback, with its data in a temporary directory."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List

#: the databases that it has, and the names of the endpoints that lead to them
DATABASES = ('users', 'orders')

PASSWORD = 'only-for-this-example'


@contextlib.contextmanager
def mariadb_server() -> Iterator[Dict[str, Dict[str, Any]]]:
    """Run MariaDB for the length of a ``with`` block. Yields the connect keywords of each endpoint."""
    with tempfile.TemporaryDirectory(prefix='gcp-example-') as name:
        directory = pathlib.Path(name)
        common = ['--no-defaults', f'--datadir={directory / "data"}']
        if os.geteuid() == 0:
            common.append('--user=root')
        # a server that starts deletes the temporary tables that it finds, also those of another one
        environ = {**os.environ, 'TMPDIR': name}
        install = _program('mariadb-install-db')
        subprocess.run([install, *common, '--skip-test-db'], check=True, stdout=subprocess.DEVNULL, env=environ)
        init = directory / 'init.sql'
        # one statement a line
        init.write_text(f"CREATE USER app@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n" + ''.join(
            f"CREATE DATABASE {name};\nGRANT ALL ON {name}.* TO app@'127.0.0.1';\n" for name in DATABASES
        ))
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = free.getsockname()[1]
        server = subprocess.Popen([
            _program('mariadbd'), *common, f'--socket={directory / "socket"}', f'--pid-file={directory / "pid"}',
            f'--port={port}', '--bind-address=127.0.0.1', '--skip-name-resolve', f'--init-file={init}',
        ], stderr=subprocess.DEVNULL, env=environ)  # fmt: skip
        try:
            _await(server, port)
            where = {'host': '127.0.0.1', 'port': port, 'user': 'app', 'password': PASSWORD}
            yield {name: {**where, 'database': name} for name in DATABASES}
        finally:
            server.kill()
            server.wait()


def _program(name: str) -> str:
    # where Debian puts servers, and not everybody looks
    places: List[str] = [os.environ.get('PATH', os.defpath), '/usr/sbin']
    path = shutil.which(name, path=os.pathsep.join(places))
    if path is None:
        sys.exit(f'{name} is missing: apt-get install --no-install-recommends mariadb-server')
    return path


def _await(server: 'subprocess.Popen[bytes]', port: int) -> None:
    while server.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', port)):
            return
        time.sleep(0.02)
    sys.exit('MariaDB does not start')
