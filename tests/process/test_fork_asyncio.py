"""An asyncio pool in a child that a task forks: it starts empty, in an event loop of the child's. HAZARD 38"""

import asyncio
import itertools
import os
import signal
import socket
from typing import Any, Callable, Dict, List, Tuple

import pytest
from generic_connection_pool._core import core_implementation
from generic_connection_pool.asyncio import ConnectionPool
from support.forking import fork, in_child
from support.tasks import GENEROUS, Gate, Manager, Pool, always, finish, passes, queue_up

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')

HOOKS = ['create', 'check_aliveness', 'on_connection_dead', 'on_acquire', 'on_release', 'is_reusable', 'dispose']


class Sockets(Manager):
    """Its connections are sockets whose peers it knows; notes what is left to the parent."""

    def __init__(self, **behaviours: Callable[..., Any]):
        super().__init__(**behaviours)
        self.peers: Dict[socket.socket, socket.socket] = {}
        self.left: List[Any] = []

    async def create(self, endpoint: Any) -> Any:
        behaviour = self.behaviours.get('create')
        if behaviour is not None:
            await behaviour(endpoint)
        conn, peer = socket.socketpair()
        peer.setblocking(False)
        self.peers[conn] = peer
        self.created.append(conn)
        return conn

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        await super().dispose(endpoint, conn)
        conn.close()
        self.peers.pop(conn).close()

    def on_fork(self, endpoint: Any, conn: Any) -> None:
        self.left.append(endpoint)
        super().on_fork(endpoint, conn)

    def check_peers(self) -> None:
        """Nobody has told the peers anything, and who does now is heard."""
        for conn, peer in self.peers.items():
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            conn.sendall(b'x')
            assert peer.recv(9) == b'x'


def one_after_the_other() -> Callable[..., Any]:
    """A behaviour that takes longer each time."""
    lengths = itertools.count(5, 5)

    async def behaviour(*_: Any) -> None:
        await passes(next(lengths))

    return behaviour


async def works(pool: Pool) -> bool:
    """The pool of a child is as good as new."""
    assert pool.get_size() == 0 and not pool.is_full
    assert [pool._core.waiting(endpoint) for endpoint in 'abcd'] == [0] * 4
    pool._core.check_invariants()
    manager: Any = pool._connection_manager
    old = set(map(id, manager.created))
    del manager.disposed[:]
    held = [await pool.acquire('a', timeout=GENEROUS) for _ in range(pool.max_size)]
    waiter = await queue_up(pool, 'a')
    await pool.release(held[0], 'a')
    assert await asyncio.wait_for(waiter, GENEROUS) is held[0]
    async with pool.connection('b', timeout=GENEROUS) as other:
        assert not {*map(id, held), id(other)} & old
    for conn in held:
        await pool.release(conn, 'a')
    pool._core.check_invariants()
    await pool.close()
    assert pool.get_size() == 0
    assert not set(map(id, manager.disposed)) & old, "the parent's was disposed of"
    return True


def child_of(pool: Pool) -> Callable[[], Tuple[bool, List[str]]]:
    """What a child does: see that the pool works, and tell what was left to the parent."""

    def child() -> Tuple[bool, List[str]]:
        manager: Any = pool._connection_manager
        left = sorted(manager.left)
        manager.behaviours.update({name: always(True) for name in manager.behaviours})
        manager.behaviours.update(dispose=one_after_the_other(), is_reusable=lambda *_: True)
        return asyncio.run(works(pool)), left

    return child


async def one_operation(pool: Pool, hook: str, timeout: Any) -> None:
    try:
        async with pool.connection('a', timeout):
            if hook == 'is_reusable':
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass


async def pool_whose_hook_runs(hook: str, action: Callable[[], Any]) -> Pool:
    """A pool that runs an action in a hook, when next a connection of ``'a'`` is acquired and released."""

    def at_once(endpoint: str, *_: Any) -> bool:
        if endpoint == 'a':
            action()
        return True

    async def behaviour(*args: Any) -> bool:
        return at_once(*args)

    is_checked = hook in ('check_aliveness', 'on_connection_dead')
    manager = Sockets(**{'check_aliveness': always(True), hook: at_once if hook == 'is_reusable' else always(True)})
    pool: Pool = ConnectionPool(manager, max_size=2, total_max_size=4, min_idle=0, idle_timeout=60 if is_checked else 0)
    if is_checked:
        await pool.release(await pool.acquire('a'), 'a')
    if hook == 'on_connection_dead':
        answers = [True, False]

        async def check(*_: Any) -> bool:
            return answers.pop() if answers else True

        manager.behaviours['check_aliveness'] = check
    if hook != 'is_reusable':
        manager.behaviours[hook] = behaviour
    return pool


@pytest.mark.parametrize('timeout', [None, GENEROUS])
@pytest.mark.parametrize('hook', HOOKS)
async def test_a_child_that_a_hook_forks_and_waits_for_has_a_pool_of_its_own(hook: str, timeout: Any) -> None:
    reports: List[Any] = []

    def action() -> None:
        if not reports:
            reports.append(in_child(child_of(pool)))
            manager.check_peers()

    pool = await pool_whose_hook_runs(hook, action)
    manager: Any = pool._connection_manager
    held = await pool.acquire('b')
    await one_operation(pool, hook, timeout)
    assert reports == [(True, ['b'] if hook == 'create' else ['a', 'b'])]
    assert not manager.left
    manager.check_peers()
    await pool.release(held, 'b')
    await finish(pool, manager)


@pytest.mark.skipif(core_implementation != 'python', reason='nothing interrupts an operation of the compiled core')
def test_a_fork_in_the_middle_of_a_grant_gives_the_child_no_connection_of_its_parent() -> None:
    """A finalizer or signal handler forks within the pure core. What that goes on to grant in the child is taken back."""
    children: List[int] = []
    reader, writer = os.pipe()

    async def main() -> None:
        manager = Sockets(check_aliveness=always(True))
        pool: Any = ConnectionPool(manager, max_size=1)
        await pool.release(await pool.acquire('a'), 'a')
        core = pool._core

        def lend(record: Any, holder: int) -> None:
            type(core)._lend(core, record, holder)
            del core._lend
            children.append(fork())

        core._lend = lend
        conn: Any = None
        outcome = 'a connection'
        try:
            conn = await pool.acquire('a')
        except BaseException as exc:
            outcome = type(exc).__name__
        if children == [0]:
            os.write(writer, outcome.encode())
            os._exit(0)
        os.close(writer)
        assert outcome == 'a connection'
        with os.fdopen(reader) as pipe:
            assert pipe.read() == 'RuntimeError'
        os.waitpid(children[0], 0)
        await pool.release(conn, 'a')
        await finish(pool, manager)

    asyncio.run(main())


@pytest.mark.parametrize('hook', HOOKS)
def test_a_hook_that_returns_in_the_child_harms_nobody(hook: str) -> None:
    """The child goes on with the parent's coroutine, as far as that gets without its event loop."""
    children: List[int] = []
    reader, writer = os.pipe()

    def action() -> None:
        if not children:
            children.append(fork())

    async def main() -> None:
        pool = await pool_whose_hook_runs(hook, action)
        held = await pool.acquire('b')
        outcome = 'fine'
        try:
            await one_operation(pool, hook, None)
        except RuntimeError:
            outcome = 'RuntimeError'
        if children == [0]:
            try:
                signal.alarm(10)
                worked, _ = child_of(pool)()
                os.write(writer, f'{outcome} {worked}'.encode())
            except BaseException as exc:
                os.write(writer, repr(exc).encode())
                raise
            finally:
                os._exit(0)
        assert outcome == 'fine'
        os.waitpid(children[0], 0)
        manager: Any = pool._connection_manager
        manager.check_peers()
        await pool.release(held, 'b')
        await finish(pool, manager)

    asyncio.run(main())
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    in_the_child = 'fine' if hook in ('on_release', 'is_reusable', 'dispose') else 'RuntimeError'
    assert told == f'{in_the_child} True'


async def test_a_child_has_neither_those_who_wait_nor_those_who_create_nor_those_who_dispose() -> None:
    creating, disposing = Gate(), Gate()
    manager = Sockets(create=always(None), dispose=always(None))
    pool: Pool = ConnectionPool(manager, max_size=2, total_max_size=4, background_collector=True)
    held = [await pool.acquire('a'), await pool.acquire('b')]
    manager.behaviours.update(create=creating, dispose=disposing)
    tasks = [(endpoint, asyncio.ensure_future(pool.acquire(endpoint, GENEROUS))) for endpoint in 'ac']
    await creating.reached(2)
    for endpoint, timeout in (('a', None), ('a', GENEROUS), ('d', GENEROUS), ('d', None)):
        tasks.append((endpoint, await queue_up(pool, endpoint, timeout)))
    await pool.release(held[1], 'b')  # one who waits for 'd' has it disposed of
    await disposing.reached()
    sizes = pool.get_size(), [pool._core.waiting(endpoint) for endpoint in 'abcd']
    assert sizes == (4, [2, 0, 0, 2])
    assert in_child(child_of(pool)) == (True, ['a', 'b'])
    assert sizes == (pool.get_size(), [pool._core.waiting(endpoint) for endpoint in 'abcd'])
    manager.check_peers()
    creating.open()
    disposing.open()
    await pool.release(held[0], 'a')

    async def use(endpoint: str, task: 'asyncio.Task[Any]') -> None:
        await pool.release(await asyncio.wait_for(task, GENEROUS), endpoint)

    await asyncio.gather(*(use(endpoint, task) for endpoint, task in tasks))
    await finish(pool, manager)
