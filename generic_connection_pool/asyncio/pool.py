"""The connection pool for asyncio."""

import asyncio
import collections
import inspect
import logging
import threading
import warnings
from asyncio import _get_running_loop
from typing import Any, Callable, Coroutine, Deque, Dict, Optional, Set, Tuple

from .. import _fork
from .._core import (
    CLOSED, COLLECT, CONNECTION, DISPOSE, DISPOSING, HOOKS, RETURNING, SLOT, WAITING, AsyncPool, Core, Record, ReentryError,
    Ticket, current_holder, monotonic,
)  # fmt: skip
from .._deadlines import deadline_after, remaining
from .._messages import show
from ..common import BaseConnectionPool, ConnectionT, EndpointT, check_manager, check_timeout, is_overridden
from .background import Background, run_to_suspension
from .collector import start_collector
from .holders import Holders
from .hooks import (
    TIMEOUTS, DeadlinePassed, PoolTimeoutError, bounded, count_frames, forget_frames, in_child, is_being_closed,
    let_finish, run_hook,
)  # fmt: skip
from .manager import BaseConnectionManager
from .waiter import Waiter

__all__ = ('ConnectionPool',)

logger = logging.getLogger(__name__)

#: seconds that ``close`` gives the connections which it disposes of when its timeout is over
LAST_GRACE = 0.25


class ConnectionPool(BaseConnectionPool[EndpointT, ConnectionT], AsyncPool[EndpointT, ConnectionT]):
    """A pool of connections to any number of endpoints, shared by the tasks of an event loop.

    It may be constructed before the loop runs, and be used in another loop once the first one is closed.

    :param connection_manager: opens, checks and closes connections
    :param acquire_timeout: seconds that an acquire waits at the most unless it says otherwise, 0 or more; ``None`` (the
        default) for no bound
    :param background_collector: have a task (``gcp-collector``) dispose of what is due; without it (the default), each
        release does
    :param dispose_batch_size: connections that one release disposes of at the most; 0 (the default) for
        ``int(log2(connections + 1)) + 1``
    :param dispose_timeout: seconds that disposing of a connection may take, 0 or more; ``None`` (the default) for no
        bound
    :param idle_timeout: seconds after which an idle connection beyond ``min_idle`` is disposed of, 0 or more;
        default 60
    :param max_lifetime: seconds after which any connection is disposed of, 0 or more; default 3600
    :param min_idle: connections of an endpoint that ``idle_timeout`` does not concern, 0 or more; default 1
    :param max_size: connections of one endpoint at the most, 1 or more; default 10
    :param total_max_size: connections of all endpoints at the most, 1 or more; default 100
    :raises ValueError: names the parameter, its value and what is allowed
    :raises TypeError: the manager lacks a method, is a class, or is one for the other runtime
    """

    def __init__(
        self,
        connection_manager: BaseConnectionManager[EndpointT, ConnectionT],
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
        check_manager(connection_manager, asynchronous=True)
        own = {name: is_overridden(connection_manager, BaseConnectionManager, name) for name in HOOK_NAMES}
        super().__init__(
            acquire_timeout=acquire_timeout,
            background_collector=background_collector,
            dispose_batch_size=dispose_batch_size,
            dispose_timeout=dispose_timeout,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            min_idle=min_idle,
            max_size=max_size,
            total_max_size=total_max_size,
        )
        self._connection_manager = connection_manager
        self._checks_aliveness = own['check_aliveness']
        self._checks_reuse = own['is_reusable']
        self._setup(
            self._core,
            not (own['check_aliveness'] or own['on_acquire']),
            not own['on_release'],
            not own['is_reusable'],
            not self._background_collector,
        )
        self._start_empty()
        _fork.follow(self)

    def _start_empty(self) -> None:
        self._collector: Optional['asyncio.Task[None]'] = None
        self._holders = Holders()
        #: disposals under way, and cancelled creations that have not ended yet
        self._background = Background()
        #: connections that the manager is yet to be told to dispose of
        self._doomed: Dict[Record, None] = {}  # a set would make their order chance
        #: tickets that were woken too late, and who sees to them
        self._lost: Deque[Ticket] = collections.deque()
        self._losing = threading.Lock()
        #: those of acquires and of cancelled creations that are under way
        self._tickets: Set[Ticket] = set()

    def __del__(self, _warn: Any = warnings.warn) -> None:  # at exit, the module may have been emptied already
        core = getattr(self, '_core', None)  # the constructor may have failed
        if core is not None and not core.closed:
            _warn(f'unclosed {self!r}', ResourceWarning, source=self, stacklevel=2)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has begun."""
        return self._core.closed

    async def get_endpoint_pool_size(self, endpoint: EndpointT, acquired: Optional[bool] = None) -> int:
        """Count the connections of one endpoint.

        :param endpoint: the endpoint; of an unknown one there are 0
        :param acquired: ``True`` counts the acquired ones, ``False`` the idle ones, ``None`` (the default) all, those
            being created or disposed of included
        :return: the number of connections
        """
        return self._endpoint_size(endpoint, acquired)

    async def close(self, timeout: Optional[float] = None) -> None:
        """Close the pool: whoever waits for a connection is told, idle connections are disposed of, acquired ones when
        they are released. Returns when all are. Closing again, also after a cancelled ``close``, is fine.

        :param timeout: seconds to wait at the most, after which acquired connections are disposed of nevertheless;
            ``None`` (the default) to wait as long as it takes
        """
        deadline = deadline_after(check_timeout(timeout))
        self._core.close()
        self._settle_in(asyncio.get_running_loop())
        self._dispose_all_idle()
        if not await self._drain(deadline):
            record = self._core.next_lent()
            while record is not None:
                self._dispose(record)
                record = self._core.next_lent()
            await self._drain(monotonic() + LAST_GRACE)

    # -- acquiring

    async def _acquire(self, endpoint: EndpointT, timeout: Optional[float]) -> Record:
        """Do what the core says until there is a connection that is ready for use."""
        started = monotonic()
        timeout = self._acquire_timeout if timeout is None else check_timeout(timeout)
        deadline = None if timeout is None else started + timeout
        waiter = Waiter(self._enter_loop(), lambda: self._lose(ticket))
        ticket = Ticket(current_holder(), waiter.notify)
        self._tickets.add(ticket)
        try:
            await self._serve(ticket, waiter, endpoint, deadline, started)
            if self.closed:  # it may have been disposed of already
                self._refuse_closed()
        except BaseException as exc:
            if is_being_closed(exc):
                self._surely(lambda: self._abandon(ticket))
            else:
                await let_finish(self._abandon(ticket))
            if isinstance(exc, DeadlinePassed):
                text = self._describe(endpoint, monotonic() - started)
                raise PoolTimeoutError(text + self._holders.tell(self._core.holders(endpoint))) from None
            raise
        finally:
            self._tickets.discard(ticket)
        assert ticket.record is not None
        return ticket.record

    async def _serve(
        self, ticket: Ticket, waiter: Waiter, endpoint: EndpointT, deadline: Optional[float], started: float
    ) -> None:
        self._core.request(ticket, endpoint, started)
        while True:
            state = ticket.state  # read first: a ticket that no longer waits gets no more victims
            victim = ticket.take_victim()
            if victim is not None:
                self._dispose(victim)
                self._core.rest(ticket)
            if state == WAITING:
                if not await waiter.wait(remaining(deadline)) and self._core.withdraw(ticket):
                    raise DeadlinePassed
            elif state == SLOT:
                await self._connect(ticket, endpoint, remaining(deadline))
                return await self._announce(ticket, endpoint, deadline)
            elif state == CLOSED:
                self._refuse_closed()
            elif state == CONNECTION and await self._check(ticket, endpoint, deadline):
                return await self._announce(ticket, endpoint, deadline)

    async def _connect(self, ticket: Ticket, endpoint: EndpointT, timeout: Optional[float]) -> None:
        """Create a connection in the slot that the ticket holds."""
        creation = run_hook(self, self._connection_manager.create, endpoint)
        if timeout is None:
            conn = await creation
        else:
            conn = await in_child(creation, timeout, lambda task: self._surely(lambda: self._adopt(ticket, task)))
        if ticket.state != SLOT:  # revoked: this is a forked child
            self._leave_to_parent(endpoint, conn)
            self._refuse_closed()
        if not self._core.fulfil(ticket, conn, monotonic()):
            assert ticket.record is not None
            self._dispose(ticket.record)
            self._refuse_closed()

    def _adopt(self, ticket: Ticket, task: 'asyncio.Task[Any]') -> None:
        """A creation goes on (to its end, it is cancelled) without its caller: it has the ticket's slot."""
        orphan = Ticket(0, lambda: None)  # it is never waited for
        if ticket.state != SLOT:  # revoked
            return
        self._core.transfer(ticket, orphan)
        self._tickets.add(orphan)

        def settle(task: 'asyncio.Task[Any]') -> None:
            self._tickets.discard(orphan)
            if orphan.state != SLOT:  # revoked
                return
            if not task.done() or task.cancelled() or task.exception() is not None:
                self._core.fail(orphan)
            else:  # too late for its caller
                if self._core.fulfil(orphan, task.result(), monotonic()):
                    assert orphan.record is not None
                    self._core.discard(orphan.record)
                assert orphan.record is not None
                self._dispose(orphan.record)

        self._background.add(task, settle)

    async def _check(self, ticket: Ticket, endpoint: EndpointT, deadline: Optional[float]) -> bool:
        """Check the connection granted; if it is dead, ask for another one."""
        if not self._checks_aliveness:
            return True
        manager = self._connection_manager
        assert ticket.record is not None
        conn = ticket.record.conn
        if await self._guarded(ticket, self._is_alive(endpoint, conn), deadline):
            ticket.dirty = False
            return True
        await bounded(run_hook(self, manager.on_connection_dead, endpoint, conn), remaining(deadline))
        if self.closed or ticket.state != CONNECTION:  # it may have been disposed of already, or was revoked
            self._refuse_closed()
        self._core.replace(ticket, monotonic())
        ticket.dirty = False
        return False

    async def _is_alive(self, endpoint: EndpointT, conn: ConnectionT) -> bool:
        answer = await run_hook(self, self._connection_manager.check_aliveness, endpoint, conn)
        return bool(answer)  # which may fail, as the check itself

    async def _announce(self, ticket: Ticket, endpoint: EndpointT, deadline: Optional[float]) -> None:
        """Tell the manager that a connection is about to be handed out."""
        if not self._plain_acquire:
            assert ticket.record is not None
            hook = self._connection_manager.on_acquire
            # it stays unfit: from now on, going back idle would take an on_release
            await self._guarded(ticket, run_hook(self, hook, endpoint, ticket.record.conn), deadline)

    async def _guarded(self, ticket: Ticket, hook: Coroutine[Any, Any, Any], deadline: Optional[float]) -> Any:
        """Await a hook with the connection granted. From then on it is unfit for others, unless an ordinary exception ends
        the hook; if the hook ends well, the caller knows what that means.
        """
        ticket.dirty = True
        try:
            answer = await bounded(hook, remaining(deadline))
        except TIMEOUTS:
            raise
        except Exception:
            ticket.dirty = False
            raise
        if ticket.state != CONNECTION:  # revoked
            self._refuse_closed()
        return answer

    def _abandon(self, ticket: Ticket) -> 'Tuple[asyncio.Task[Any], ...]':
        """The acquire failed: give back whatever the ticket holds. Returns the disposals that this takes."""
        core = self._core
        core.withdraw(ticket)
        doomed = [ticket.take_victim()]
        if ticket.state == SLOT:
            core.fail(ticket)
        elif ticket.state == CONNECTION:
            record, ticket.record = ticket.record, None  # the caller may come here again, after a lost wake-up
            if record is not None and ticket.dirty:
                if core.discard(record):
                    doomed.append(record)
            elif record is not None and not core.give_back(record, monotonic()):
                doomed.append(record)
        disposals = [self._dispose(record) for record in doomed if record is not None]
        return tuple(task for task in disposals if task is not None)

    def _lose(self, ticket: Ticket) -> None:
        """A ticket was woken whose owner will never run again, because its loop is closed: pass on what it was granted.

        That may wake the next one of that kind, and so on for thousands: by iteration, not by recursion.
        """
        self._lost.append(ticket)
        while self._lost and self._losing.acquire(blocking=False):
            try:
                while self._lost:
                    self._abandon(self._lost.popleft())
            finally:
                self._losing.release()

    def _surely(self, step: Callable[[], object]) -> None:
        """Take a step of cleaning up. If the garbage collector, which closes coroutines whenever it likes, wants it in
        the middle of an operation of the core, it is taken after that.
        """
        try:
            step()
        except ReentryError:
            self._core.mutex.defer(step)

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, to which the pool belongs from now on."""
        loop = asyncio.get_running_loop()
        if not self._settle_in(loop):
            raise RuntimeError('the pool is in use by another event loop, which has not been closed')
        if self._background_collector and not self.closed:
            if self._collector is None or self._collector.done() or self._collector.get_loop() is not loop:
                self._collector = start_collector(self, loop)
        return loop

    def _settle_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Make the pool that of the running loop, unless another one has it that is not closed."""
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                return False
            self._loop = loop
            self._background.bury()
            for record in list(self._doomed):
                self._dispose(record)
            self._dispose_all_idle()  # they belong to the loop that has ended, as do those that may come back
            self._core.outdate()
        else:
            self._loop = loop  # the compiled core notes this run of it
        return True

    # -- releasing and disposing

    async def _finish(self, record: Record, exc: Optional[BaseException], todo: int) -> None:
        """Do what a release has left to be done."""
        if todo == HOOKS:
            try:
                todo = await self._ask_hooks(record, exc)
            except BaseException:
                if record.state == RETURNING:  # its state is unknown
                    self._surely(lambda: self._scrap(record))
                raise
        if todo == DISPOSE:
            await self._settle_disposal(self._dispose(record), exc)
        if todo in (DISPOSE, COLLECT) and self._collects:
            now = monotonic()
            for _ in range(self._due_batch() - (todo == DISPOSE)):
                due = self._core.next_due(now)
                if due is None:
                    break
                await self._settle_disposal(self._dispose(due), exc)

    async def _ask_hooks(self, record: Record, exc: Optional[BaseException]) -> int:
        """Ask the hooks about a connection whose release has begun, and end it. Returns what is left to be done."""
        manager = self._connection_manager
        endpoint: Any = record.key
        if exc is not None and self._checks_reuse:
            reusable: Any = manager.is_reusable(endpoint, record.conn, exc)
            if inspect.isawaitable(reusable):
                reusable = not is_being_closed(exc) and await reusable
            if not reusable:
                self._core.discard(record)
                return DISPOSE
        if not self._plain_release:
            if is_being_closed(exc):  # nothing can be awaited, so its state stays unknown
                self._core.discard(record)
                return DISPOSE
            try:
                await run_hook(self, manager.on_release, endpoint, record.conn)
            except TIMEOUTS:
                raise
            except Exception:
                if self._give_back(record) == DISPOSE:
                    self._dispose(record)
                raise
        return self._give_back(record)

    def _return_later(self, record: Record, loan: int, exc: Optional[BaseException]) -> None:
        todo = self._return(record, loan, exc)
        if todo == HOOKS:
            self._scrap(record)
        elif todo == DISPOSE:
            self._dispose(record)

    def _scrap(self, record: Record) -> None:
        """Dispose of a connection whose release has begun."""
        if self._core.discard(record):
            self._dispose(record)

    def _dispose(self, record: Record) -> 'Optional[asyncio.Task[None]]':
        """Have the manager dispose of a doomed connection, whatever becomes of the caller. Returns the task, if any."""
        if record.state != DISPOSING:  # in a forked child it is the parent's
            return None
        self._doomed[record] = None
        running, own = _get_running_loop(), self._loop
        if running is not None and (running is own or own is None or not own.is_running()):
            task = running.create_task(self._dispose_of(record, self._dispose_timeout))
            self._background.add(task, lambda task: self._end_disposal(record, task))
            return task
        if own is not None and not own.is_closed():  # it runs in another thread, or will run again
            own.call_soon_threadsafe(self._dispose, record)
        else:
            run_to_suspension(self._dispose_of(record, None))
        return None

    async def _dispose_of(self, record: Record, timeout: Optional[float]) -> None:
        try:
            await bounded(self._run_disposal(record), timeout, self._background.add)
        except Exception as exc:
            logger.error('disposing of a connection to %s failed', show(record.key), exc_info=exc)

    async def _run_disposal(self, record: Record) -> None:
        if not record.claim():  # what a closed loop has left undone is taken up by another one
            return
        self._doomed.pop(record, None)
        try:
            await run_hook(self, self._connection_manager.dispose, record.key, record.conn)
        finally:
            self._surely(lambda: self._core.disposed(record))

    def _end_disposal(self, record: Record, task: 'asyncio.Task[None]') -> None:
        """The task of a disposal has ended. Perhaps it was cancelled before it had begun."""
        if task.done() and record in self._doomed:
            self._dispose(record)

    async def _settle_disposal(self, disposal: 'Optional[asyncio.Task[None]]', exc: Optional[BaseException]) -> None:
        """Wait for a disposal, which goes on if the caller is cancelled; a closed coroutine may not wait."""
        if disposal is not None and not is_being_closed(exc):
            await asyncio.shield(disposal)

    def _dispose_all_idle(self) -> None:
        record = self._core.next_idle()
        while record is not None:
            self._dispose(record)
            record = self._core.next_idle()

    def _dispose_all_due(self, ticket: Ticket) -> Optional[float]:
        """For the collector: dispose of all that is due.

        :param ticket: woken as soon as something is due earlier than it seems now
        :return: seconds until the next connection may be due, ``None`` if none is idle
        """
        now = monotonic()
        record = self._core.next_due(now)
        while record is not None:
            self._dispose(record)
            record = self._core.next_due(now)
        due = self._core.set_alarm(ticket)
        return None if due is None else max(due - now, 0.0)

    async def _drain(self, deadline: Optional[float]) -> bool:
        """Wait until all slots are free, but for those whose hook the caller is in."""
        waiter = Waiter(asyncio.get_running_loop())
        ticket = Ticket(0, waiter.notify)
        core = self._core
        excused = count_frames(self)
        if core.join(ticket, excused):
            return True
        try:
            while not self._core.drained(excused):
                if not await waiter.wait(remaining(deadline)):
                    return self._core.drained(excused)
            return True
        finally:
            if core is self._core:  # this is not a forked child
                self._surely(lambda: core.leave(ticket, excused))

    def _renew_facade(self, core: Core) -> None:
        _fork.keep(self._loop, self._collector, self._background)  # tasks complain when they are finalized
        forget_frames(self)
        self._renew(core, self._tickets)
        self._core = core
        self._start_empty()


#: the hooks of a manager that cost nothing unless they are overridden
HOOK_NAMES = ('check_aliveness', 'on_acquire', 'on_release', 'is_reusable')
