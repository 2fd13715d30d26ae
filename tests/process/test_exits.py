"""The interpreter ends with a busy pool: silently and promptly, however it ends. HAZARD 39"""

import os
import subprocess
import sys
import sysconfig
from typing import Any

import pytest
from generic_connection_pool._core import core_implementation

PROLOGUE = """
import asyncio, atexit, select, sys, threading
from generic_connection_pool import ConnectionPoolClosedError, asyncio as aio
from generic_connection_pool import threading as thr

def turn(select=select.select):  # at the very end, when finalizers call it, the modules written in Python are gone
    select((), (), (), 0.0005)

class Manager(thr.BaseConnectionManager):
    stuck = threading.Event()
    def create(self, endpoint, timeout=None):
        if endpoint == 'hangs': Manager.stuck.set(); threading.Event().wait()
        return object()
    def dispose(self, endpoint, conn, timeout=None):
        if endpoint == 'never': Manager.stuck.set(); threading.Event().wait()
    def on_release(self, endpoint, conn, turn=turn): turn()

class AsyncManager(aio.BaseConnectionManager):
    async def create(self, endpoint):
        if endpoint == 'hangs': await asyncio.get_running_loop().create_future()
        return object()
    async def dispose(self, endpoint, conn):
        if endpoint == 'never': await asyncio.get_running_loop().create_future()

def start(function, *args):
    def run():
        try: function(*args)
        except ConnectionPoolClosedError: pass
    threading.Thread(target=run, daemon=True).start()

def until(condition):
    while not condition(): turn()

def hammer(pool, endpoint):
    while True:
        with pool.connection(endpoint, timeout=5): turn()

def busy():
    '''Everything at once: a collector, connections that are acquired, waiters, a hanging create, disposers, users.'''
    pool = thr.ConnectionPool(
        Manager(), background_collector=True, max_size=1, total_max_size=6, min_idle=0, idle_timeout=0.001,
    )
    pool.held = pool.acquire('a')
    for timeout in (None, 50): start(pool.acquire, 'a', timeout)
    until(lambda: pool._core.waiting('a') == 2)
    start(pool.acquire, 'hangs')
    Manager.stuck.wait()
    for endpoint in 'bcdef': start(hammer, pool, endpoint)
    until(lambda: pool.get_size() == 6)
    return pool
"""

SCRIPTS = {
    'a busy pool in a global': ('pool = busy()', 0),
    'a busy pool in a cycle': ('pool = busy(); pool.me = pool; pool._connection_manager.pool = pool; del pool', 0),
    'a busy pool, and sys.exit': ('pool = busy(); sys.exit(5)', 5),
    'a busy pool, and sys.exit within a block': (
        "pool = busy()\nwith pool.connection('b'): sys.exit(5)", 5,
    ),
    'a pool used in atexit handlers': (
        'pool = busy()\n'
        'def last():\n'
        "    with pool.connection('b', timeout=5): pass\n"
        '    try: pool.acquire("a", timeout=0.01)\n'
        '    except TimeoutError: pass\n'
        '@atexit.register\n'
        'def both(): last(); pool.close(0.05)', 0,
    ),
    'a pool acquired from in a finalizer at the very end': (
        'pool = busy()\n'
        'class Late:\n'
        '    def __del__(self, pool=pool):\n'
        "        if not pool.closed: pool.release(pool.held, 'a'); pool.close(0.01)\n"
        'late = Late()', 0,
    ),
    'a disposal that hangs': (
        "pool = thr.ConnectionPool(Manager(), total_max_size=1)\n"
        "with pool.connection('never'): pass\n"
        "try: pool.acquire('a', timeout=0.01)\n"
        'except TimeoutError: pass\n'
        'Manager.stuck.wait()', 0,
    ),
    'threads that are joined': (
        "pool = thr.ConnectionPool(Manager(), max_size=1)\n"
        'def work():\n'
        '    for _ in range(20):\n'
        "        with pool.connection('a', timeout=20): pass\n"
        'for _ in range(4): threading.Thread(target=work).start()', 0,
    ),
    'asyncio.run that ends with tasks in all states': (
        'async def hold():\n'
        "    async with pool.connection('b'): await asyncio.get_running_loop().create_future()\n"
        'async def main():\n'
        '    global pool, tasks\n'
        '    pool = aio.ConnectionPool(AsyncManager(), background_collector=True, max_size=1, total_max_size=5)\n'
        "    async with pool.connection('never'): pass\n"
        "    waits = [pool.acquire('b'), pool.acquire('b', 50), pool.acquire('hangs'), pool.acquire('hangs', 50)]\n"
        '    tasks = [asyncio.ensure_future(coro) for coro in (hold(), *waits)]\n'
        '    for _ in range(10): await asyncio.sleep(0)\n'
        "    assert pool._core.waiting('b') == 2\n"
        'asyncio.run(main())', 0,
    ),
    'a loop that is simply left, with a pool': (
        'pool = aio.ConnectionPool(AsyncManager())\n'
        'async def use():\n'
        "    async with pool.connection('a'): pass\n"
        'loop = asyncio.new_event_loop()\n'
        'loop.run_until_complete(use())\n'
        'loop.close()', 0,
    ),
}


@pytest.mark.parametrize('case', SCRIPTS)
def test_the_interpreter_ends_silently_and_promptly(case: str, tmp_path: Any) -> None:
    if 'very end' in case and sysconfig.get_config_var('Py_GIL_DISABLED'):
        pytest.skip('without a GIL, the modules are emptied before the last globals are freed: no Python code works then')
    code, status = SCRIPTS[case]
    # in the development mode the allocators look for writes beyond the end, which the compiled core might make
    modes = [[], ['-X', 'dev']] if core_implementation == 'cython' else [[]]
    processes = [run(code, tmp_path, *options) for options in modes]  # side by side: they mostly wait
    try:
        for options, process in zip(modes, processes):
            stdout, stderr = process.communicate(timeout=20)
            told = [line for line in stderr.splitlines() if not (options and _asked_for(line))]
            assert (process.returncode, stdout, told) == (status, '', []), f'{options}: {stderr}'
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run(code: str, directory: Any, *options: str) -> 'subprocess.Popen[str]':
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, *options, '-c', PROLOGUE + code],
        env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _asked_for(line: str) -> bool:
    """That a pool was not closed is what the development mode is to tell."""
    return 'ResourceWarning: unclosed <generic_connection_pool' in line or line.startswith(
        ('ResourceWarning: Enable tracemalloc', '  ')
    )


def test_an_exception_of_the_script_is_all_that_is_told(tmp_path: Any) -> None:
    with run("pool = busy()\nraise LookupError('the end')", tmp_path) as process:
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1 and stderr.count('Traceback') == 1
    assert stderr.splitlines()[-1] == 'LookupError: the end'
