"""Children of this process, made by fork, that report what they see."""

import os
import pickle
import select
import signal
import socket
import warnings
from typing import Any, Callable, Set

__all__ = ('Child', 'fork', 'in_child', 'inode', 'sockets_of', 'start_child')

#: seconds until a child that hangs is given up
PATIENCE = 15.0


class Child:
    """A forked child, seen from its parent."""

    def __init__(self, pid: int, pipe: int):
        self.pid = pid
        self._pipe = pipe

    def report(self) -> Any:
        """What the child's function returned, as soon as it has and the child is gone; what it raised, is raised."""
        data = b''
        try:
            while True:
                ready, _, _ = select.select([self._pipe], [], [], PATIENCE)
                if not ready:
                    os.kill(self.pid, signal.SIGKILL)
                    raise AssertionError('the child hangs')
                chunk = os.read(self._pipe, 1 << 16)
                if not chunk:
                    break
                data += chunk
        finally:
            os.close(self._pipe)
            _, status = os.waitpid(self.pid, 0)
        assert data, f'the child died with status {status}'
        answer, exc = pickle.loads(data)
        if exc is not None:
            raise AssertionError(f'in the child: {exc}')
        assert status == 0
        return answer


def fork() -> int:
    """``os.fork()``, without the warning that there are other threads."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        return os.fork()


def start_child(function: Callable[[], Any]) -> Child:
    """Have a forked child run a function and exit at once. Its answer must be something to be pickled."""
    reader, writer = os.pipe()
    pid = fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    answer, error = None, None
    try:
        os.close(reader)
        signal.alarm(int(PATIENCE) - 5)
        answer = function()
    except BaseException as exc:
        import traceback

        error = ''.join(traceback.format_exception(type(exc), exc, exc.__traceback__))
        raise
    finally:
        os.write(writer, pickle.dumps((answer, error)))
        os._exit(0)


def in_child(function: Callable[[], Any]) -> Any:
    """What a function returns in a forked child."""
    return start_child(function).report()


def sockets_of(pid: int) -> Set[int]:
    """The numbers (inodes) of the sockets that a process has open."""
    found = set()
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            target = os.readlink(f'/proc/{pid}/fd/{fd}')
        except OSError:  # it has just been closed
            continue
        if target.startswith('socket:['):
            found.add(int(target[len('socket:['):-1]))
    return found


def inode(sock: socket.socket) -> int:
    """The number of a socket, the same in all processes that share it."""
    return os.fstat(sock.fileno()).st_ino
