"""What the tests of the threads pool have in common: threads that report back, conditions, recording managers."""

import contextlib
import threading
import time
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

#: seconds until a test that hangs is given up
PATIENCE = 20.0


def start(function: Callable[..., Any], *args: Any, name: Optional[str] = None, **kwargs: Any) -> 'Future[Any]':
    """Run a function in a thread of its own, a daemon, so that a test that fails does not hang."""
    future: 'Future[Any]' = Future()

    def run() -> None:
        try:
            answer = function(*args, **kwargs)
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(answer)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def result(future: 'Future[Any]') -> Any:
    """What a started function returned or raised, as soon as it has."""
    return future.result(PATIENCE)


def error(future: 'Future[Any]') -> Optional[BaseException]:
    """What a started function raised, as soon as it has ended."""
    return future.exception(PATIENCE)


def wait_until(condition: Callable[[], Any], what: str = 'the condition') -> None:
    """Wait for something that another thread brings about."""
    ticks = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f'{what} did not come true')
        ticks.wait(0.0005)


def let_pass(seconds: float) -> None:
    """Wait until the clock of the pools has moved on: for timeouts to be over, never for other threads."""
    deadline = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > deadline)


def wait_for(event: threading.Event) -> None:
    """Wait for an event, but not for ever."""
    assert event.wait(PATIENCE), 'the event did not come'


def start_waiting(pool: 'ConnectionPool[Any, Any]', endpoint: Any, timeout: Optional[float] = None) -> 'Future[Any]':
    """Acquire in another thread, and return when it stands in the queue of the endpoint."""
    before = pool._core.waiting(endpoint)
    future = start(pool.acquire, endpoint, timeout)
    wait_until(lambda: future.done() or pool._core.waiting(endpoint) > before, 'somebody waits')
    if future.done():
        raise AssertionError(f'the acquire did not wait: {future!r} {future.exception() or future.result()!r}')
    return future


class Connection:
    """A connection of the recording managers. Number 3 to endpoint ``'a'`` shows as ``a3``."""

    def __init__(self, endpoint: Any, number: int):
        self.endpoint = endpoint
        self.number = number

    def __repr__(self) -> str:
        return f'{self.endpoint}{self.number}'


class Call(NamedTuple):
    """One call of a hook."""

    hook: str
    endpoint: Any
    conn: Any
    timeout: Optional[float] = None


class Manager(BaseConnectionManager[Any, Any]):
    """Creates connections out of thin air, keeps a record, and overrides no hook that it need not."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer may run a hook within a hook
        self.calls: List[Call] = []
        self.created: List[Any] = []
        self.disposed: List[Any] = []
        #: what a hook does, by its name, given the endpoint and the connection; its answer counts unless it is None
        self.doing: Dict[str, Callable[[Any, Any], Any]] = {}

    def create(self, endpoint: Any, timeout: Optional[float] = None) -> Any:
        answer = self._called('create', endpoint, None, timeout)
        with self.lock:
            conn = answer if answer is not None else Connection(endpoint, len(self.created) + 1)
            self.created.append(conn)
        return conn

    def dispose(self, endpoint: Any, conn: Any, timeout: Optional[float] = None) -> None:
        self._called('dispose', endpoint, conn, timeout, lambda: self.disposed.append(conn))

    def called(self, *hooks: str) -> List[Call]:
        """The calls of some hooks so far, of all by default."""
        return [call for call in self.calls if not hooks or call.hook in hooks]

    def check_accounts(self) -> None:
        """Every connection that was created has been disposed of, once."""
        created, disposed = sorted(map(id, self.created)), sorted(map(id, self.disposed))
        assert created == disposed, f'created {self.created}, disposed of {self.disposed}'

    def _called(
        self,
        hook: str,
        endpoint: Any,
        conn: Any,
        timeout: Optional[float] = None,
        note: Optional[Callable[[], None]] = None,
    ) -> Any:
        with self.lock:
            self.calls.append(Call(hook, endpoint, conn, timeout))
            if note is not None:
                note()
        action = self.doing.get(hook)
        return None if action is None else action(endpoint, conn)


class HookedManager(Manager):
    """Overrides, and records, every hook."""

    def check_aliveness(self, endpoint: Any, conn: Any, timeout: Optional[float] = None) -> bool:
        answer = self._called('check_aliveness', endpoint, conn, timeout)
        return True if answer is None else answer

    def on_acquire(self, endpoint: Any, conn: Any) -> None:
        self._called('on_acquire', endpoint, conn)

    def on_release(self, endpoint: Any, conn: Any) -> None:
        self._called('on_release', endpoint, conn)

    def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
        self._called('on_connection_dead', endpoint, conn)

    def is_reusable(self, endpoint: Any, conn: Any, exc: BaseException) -> bool:
        answer = self._called('is_reusable', endpoint, conn)
        return True if answer is None else answer


class Gate:
    """Something for a hook to do: tell that it was reached, and go on only when it is told to."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, *_: Any) -> None:
        self.reached.set()
        wait_for(self.open)


def raising(exc: BaseException) -> Callable[..., Any]:
    """Something for a hook to do: to raise."""

    def action(*_: Any) -> Any:
        raise exc

    return action


@contextlib.contextmanager
def unchanged(pool: 'ConnectionPool[Any, Any]', *endpoints: Any) -> Iterator[None]:
    """The sizes of the pool and of the endpoints are the same before and after."""

    def sizes() -> List[int]:
        found = [pool.get_size()]
        for endpoint in endpoints:
            found += [pool.get_endpoint_pool_size(endpoint, acquired) for acquired in (True, False, None)]
        return found

    before = sizes()
    yield
    assert sizes() == before
    pool._core.check_invariants()


def is_free(pool: 'ConnectionPool[Any, Any]', endpoint: Any) -> bool:
    """Every slot that the endpoint may have can be acquired at once (and is given back)."""
    held = []
    try:
        while len(held) < min(pool.max_size, pool.total_max_size):
            held.append(pool.acquire(endpoint, timeout=0))
    except TimeoutError:
        return False
    finally:
        for conn in held:
            pool.release(conn, endpoint)
    return True


def finish(pool: 'ConnectionPool[Any, Any]') -> None:
    """Close a pool, whoever holds connections, and see that nothing is left."""
    pool._core.check_invariants()
    idle = sum(pool.get_endpoint_pool_size(endpoint, acquired=False) for endpoint in pool._core.endpoints())
    pool.close(timeout=None if pool.get_size() == idle else 0)
    wait_until(lambda: pool.get_size() == 0, 'the pool is empty')
    pool._core.check_invariants()
    assert pool._core.endpoints() == []
    manager = pool._connection_manager
    if isinstance(manager, Manager):
        manager.check_accounts()
