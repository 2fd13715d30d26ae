"""What the pools of all runtimes have in common: the type variables, the configuration and its checks."""

import inspect
import math
import operator
from types import FunctionType
from typing import Any, Dict, Generic, Hashable, List, NoReturn, Optional, Tuple, TypeVar

from . import _fork
from ._core import Core
from ._messages import show, show_identity
from .exceptions import ConnectionPoolClosedError

__all__ = ('BaseConnectionPool', 'ConnectionT', 'EndpointT')

EndpointT = TypeVar('EndpointT', bound=Hashable)
ConnectionT = TypeVar('ConnectionT', bound=Hashable)

#: the counts of the core are C integers of 32 bits on some platforms
LARGEST_COUNT = 2**31 - 1

#: Seconds, some thirty years: a longer timeout is none. Operating systems refuse those that they cannot represent.
LONGEST_TIMEOUT = 1e9

#: what a connection manager must have; hooks that 0.8.1 did not know may be missing in one that derives from nothing
REQUIRED_HOOKS = ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead')


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` as an int, or raise a ValueError that names the parameter, its value and what is allowed."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if not minimum <= number <= LARGEST_COUNT:
        raise ValueError(f'{name} must be an integer from {minimum} to {LARGEST_COUNT}, not {show(value)}')
    return number


def check_seconds(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError that names the parameter, its value and what is allowed."""
    number = to_seconds(value)
    if not number >= 0.0:
        raise ValueError(f'{name} must be a number of seconds, 0 or more, not {show(value)}')
    return number


def to_seconds(value: Any) -> float:
    """Return a number of any kind as a float; not-a-number for what is none, text and booleans included."""
    if isinstance(value, bool) or not (hasattr(type(value), '__float__') or hasattr(type(value), '__index__')):
        return math.nan  # float() takes text and buffers as well
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def check_optional_seconds(name: str, value: Any) -> Optional[float]:
    """Like :func:`check_seconds`; ``None`` and more than :data:`LONGEST_TIMEOUT`, no bound, come back as ``None``."""
    if value is None:
        return None
    number = check_seconds(name, value)
    return None if number > LONGEST_TIMEOUT else number


def check_timeout(value: Any) -> Optional[float]:
    """Return a timeout of one call: ``None`` for no bound, else seconds; what is negative counts as 0."""
    if value is None or (value.__class__ is float and 0.0 <= value <= LONGEST_TIMEOUT):
        return value
    number = float(value) if isinstance(value, bool) else to_seconds(value)
    if number != number:
        raise ValueError(f'timeout must be a number of seconds or None, not {show(value)}')
    return None if number > LONGEST_TIMEOUT else max(number, 0.0)


def check_manager(manager: Any, asynchronous: bool) -> None:
    """Raise a TypeError that says what is wrong with a connection manager, as far as that can be seen from outside.

    :param manager: what the user passed as one
    :param asynchronous: it is for an asyncio pool
    """
    if isinstance(manager, type) and isinstance(inspect.getattr_static(manager, 'create', None), FunctionType):
        raise TypeError(f'connection_manager must be an instance of {manager.__qualname__}, not the class itself')
    missing = [name for name in REQUIRED_HOOKS if not callable(getattr(manager, name, None))]
    if missing:
        raise TypeError(
            f'connection_manager must be a connection manager: {show_identity(manager)} lacks {", ".join(missing)}'
        )
    coroutines = [name for name in REQUIRED_HOOKS if inspect.iscoroutinefunction(getattr(manager, name))]
    if coroutines and not asynchronous:
        raise TypeError(
            f'connection_manager must be one for threads: {", ".join(coroutines)} of {show_identity(manager)} would '
            f'have to be awaited'
        )
    if asynchronous and not coroutines:
        from .threading.manager import BaseConnectionManager  # only here: who uses asyncio need not load it

        if isinstance(manager, BaseConnectionManager):
            raise TypeError(f'connection_manager must be one for asyncio: {show_identity(manager)} is one for threads')


def is_overridden(manager: object, base: type, name: str) -> bool:
    """Tell whether a manager has its own version of a hook of its base class. If it has none, that is as if inherited."""
    inherited = getattr(base, name)
    hook = getattr(manager, name, inherited)
    return getattr(hook, '__func__', hook) is not inherited


class BaseConnectionPool(Generic[EndpointT, ConnectionT]):
    """The configuration of a pool, common to all runtimes.

    :param background_collector: have a thread or task (``gcp-collector``) dispose of what is due; without it, each
        release does. Default: ``False``
    :param acquire_timeout: seconds that an acquire waits at the most unless it says otherwise, 0 or more;
        ``None`` (the default) for no bound
    :param dispose_batch_size: connections that one release disposes of at the most; 0 (the default) for
        ``int(log2(connections + 1)) + 1``
    :param dispose_timeout: seconds that disposing of a connection may take, 0 or more; ``None`` (the default) for
        no bound
    :param idle_timeout: seconds after which an idle connection beyond ``min_idle`` is disposed of, 0 or more.
        Default: 60
    :param max_lifetime: seconds after which any connection is disposed of, 0 or more. Default: 3600
    :param min_idle: connections of an endpoint that ``idle_timeout`` does not concern, 0 or more. They are opened on
        demand. Default: 1
    :param max_size: connections of one endpoint at the most, 1 or more. Default: 10
    :param total_max_size: connections of all endpoints at the most, 1 or more. Default: 100
    :raises ValueError: names the parameter, its value and what is allowed
    """

    def __init__(
        self,
        *,
        acquire_timeout: Optional[float] = None,
        background_collector: bool = False,
        dispose_batch_size: int = 0,
        dispose_timeout: Optional[float] = None,
        idle_timeout: float = 60.0,
        max_lifetime: float = 3600.0,
        min_idle: int = 1,
        max_size: int = 10,
        total_max_size: int = 100,
    ):
        self._acquire_timeout = check_optional_seconds('acquire_timeout', acquire_timeout)
        self._background_collector = bool(background_collector)
        self._dispose_batch_size = check_integer('dispose_batch_size', dispose_batch_size, 0)
        dispose_bound = check_optional_seconds('dispose_timeout', dispose_timeout)
        self._core: Core = Core(
            check_integer('min_idle', min_idle, 0),
            check_integer('max_size', max_size, 1),
            check_integer('total_max_size', total_max_size, 1),
            check_seconds('idle_timeout', idle_timeout),
            check_seconds('max_lifetime', max_lifetime),
        )
        self._dispose_timeout = dispose_bound
        #: connections of the process that this one was forked from, by their id()
        self._inherited: Dict[int, ConnectionT] = {}

    _connection_manager: Any

    #: for the hot path, which looks at an unusual timeout only
    _check_timeout = staticmethod(check_timeout)

    @property
    def idle_timeout(self) -> float:
        """Seconds after which an idle connection beyond ``min_idle`` is disposed of."""
        return self._core.idle_timeout

    @property
    def max_lifetime(self) -> float:
        """Seconds after which any connection is disposed of."""
        return self._core.max_lifetime

    @property
    def min_idle(self) -> int:
        """Connections of an endpoint that ``idle_timeout`` does not concern."""
        return self._core.min_idle

    @property
    def max_size(self) -> int:
        """Connections of one endpoint at the most."""
        return self._core.max_size

    @property
    def total_max_size(self) -> int:
        """Connections of all endpoints at the most."""
        return self._core.total_max_size

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as ``total_max_size`` allows."""
        return self._core.total >= self._core.total_max_size

    def get_size(self) -> int:
        """The number of connections of all endpoints: idle, acquired, being created and being disposed of."""
        return self._core.total

    def _endpoint_size(self, endpoint: EndpointT, acquired: Optional[bool]) -> int:
        if acquired is None:
            return self._core.size(endpoint)
        return self._core.lent_size(endpoint) if acquired else self._core.idle_size(endpoint)

    def _due_batch(self) -> int:
        """How many connections one release disposes of at the most."""
        return self._dispose_batch_size or int(math.log2(self._core.total + 1)) + 1

    def _refuse_closed(self) -> NoReturn:
        if not self._core.closed:  # so the ticket was revoked
            raise RuntimeError('the process was forked during this acquire, which in the child comes to nothing')
        raise ConnectionPoolClosedError('the connection pool is closed')

    def _describe(self, endpoint: EndpointT, waited: float) -> str:
        """What a timed-out acquire says of the pool."""
        core = self._core
        return (
            f'no connection to {show(endpoint)} could be had within {waited:.3f} s: '
            f'{core.lent_size(endpoint)} acquired, {core.idle_size(endpoint)} idle, {core.size(endpoint)} of at most '
            f'{core.max_size} in all, {core.waiting(endpoint)} others waiting; '
            f'all endpoints: {core.total} of at most {core.total_max_size}'
        )

    # -- in a forked child

    def _start_over(self) -> List[Tuple[EndpointT, ConnectionT]]:
        """Go on empty, and closed if the parent's pool was. Returns the parent's connections and their endpoints."""
        former = self._core
        core = Core(
            former.min_idle, former.max_size, former.total_max_size, former.idle_timeout, former.max_lifetime
        )  # fmt: skip
        if former.closed:
            core.close()
        _fork.keep(former)
        inherited = [(record.key, record.conn) for record in former.disown()]
        self._inherited.update((id(conn), conn) for _, conn in inherited)
        self._renew_facade(core)
        return inherited

    def _renew_facade(self, core: Core) -> None:
        """Go on with another core. ``_core`` is the former one until then: an operation of it may be under way."""
        raise NotImplementedError

    def _is_inherited(self, conn: Any) -> bool:
        return id(conn) in self._inherited

    def _leave_to_parent(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Release what a connection of the parent has in this process; it is never to be finalized here."""
        self._inherited[id(conn)] = conn
        _fork.keep(conn)
        hook = getattr(self._connection_manager, 'on_fork', None)
        if hook is None:
            _fork.release_descriptor(conn)
        else:
            hook(endpoint, conn)
