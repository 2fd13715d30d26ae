"""A manager of connections that do not exist, whose hooks do what hooks may do at the worst."""

from typing import List, Optional, Sequence

from generic_connection_pool.exceptions import ConnectionPoolClosedError, ConnectionPoolTimeoutError
from generic_connection_pool.threading import BaseConnectionManager
from simulation.choices import Choices
from simulation.stage import Stage, Strand
from simulation.threads_ledger import Conn, Ledger

__all__ = ('HookError', 'HookedManager', 'Manager', 'Script')


class HookError(Exception):
    """An ordinary exception of a hook."""


#: what a hook may raise that is not an ordinary exception
INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)
#: how long hooks sleep, in seconds
NAPS = (0.1, 0.6, 3.0)
#: how long calls of the pool by hooks may take
SHORT = (0.2, 0.0, 2.0)


class Script:
    """Decides what each call of a hook does, besides what it is for.

    :param stage: where it happens
    :param calm: how much likelier it is that nothing happens, ``None`` if nothing ever does
    :param ledger: where it is written down
    :param endpoints: those of the pool
    """

    def __init__(self, stage: Stage, calm: Optional[int], ledger: Ledger, endpoints: Sequence[int]):
        self.stage = stage
        self.endpoints = endpoints
        self.choices: Choices = stage.choices
        self.calm = calm
        self.ledger = ledger
        self.acts = (
            self.dawdle, self.dawdle, self.nap, self.fail, self.fail, self.time_out, self.interrupt, self.hang,
            self.acquire, self.release, self.look, self.close,
        )  # fmt: skip
        #: hooks that hang
        self.hanging: List[Strand] = []

    def play(self, what: str, endpoint: int, timeout: Optional[float]) -> None:
        """What happens in a hook. May raise."""
        stage = self.stage
        stage.step(what)
        if self.calm is None:
            return
        act = self.choices.below(self.calm + len(self.acts)) - self.calm
        if act >= 0:
            me = stage.running
            me.depth += 1
            fuse, me.fuse = me.fuse, 0
            bound, me.timeout = me.timeout, None
            try:
                self.acts[act](endpoint, timeout)
            finally:
                stage.look()  # before the pool goes on with what it has called the hook for
                me.depth -= 1
                me.fuse = fuse
                me.timeout = bound

    def dawdle(self, endpoint: int, timeout: Optional[float]) -> None:
        for _ in range(1 + self.choices.below(3)):
            self.stage.step('is slow')

    def nap(self, endpoint: int, timeout: Optional[float]) -> None:
        self.sleep(self.choices.pick(NAPS))

    def fail(self, endpoint: int, timeout: Optional[float]) -> None:
        self.throw(HookError('a hook fails'))

    def time_out(self, endpoint: int, timeout: Optional[float]) -> None:
        self.throw(TimeoutError('a hook takes too long'))

    def interrupt(self, endpoint: int, timeout: Optional[float]) -> None:
        self.throw(self.choices.pick(INTERRUPTS)('in a hook'))

    def hang(self, endpoint: int, timeout: Optional[float]) -> None:
        """Hang until the timeout passes or everybody else hangs or waits too."""
        self.stage.note('hangs')
        self.choices.tally['hangs'] += 1
        me = self.stage.running
        self.hanging.append(me)
        self.stage.sleep('hangs', timeout)
        if me in self.hanging:
            self.hanging.remove(me)
        if self.choices.chance(2):
            self.throw(HookError('what hung was cut off'))

    def acquire(self, endpoint: int, timeout: Optional[float]) -> None:
        """Use the pool within its own hook."""
        me = self.stage.running
        if me.depth > 2:
            return
        other = self.choices.pick(self.endpoints)
        me.timeout = bound = self.choices.pick(SHORT)
        self.stage.note(f'acquires {other} within the hook')
        try:
            with self.ledger.pool.connection(other, bound) as conn:
                me.timeout = None
                self.ledger.lent(conn, other)
                me.borrows += 1
                try:
                    self.stage.step(f'holds {conn} within the hook')
                finally:
                    me.borrows -= 1
                    self.ledger.given_back(conn)
        except (ConnectionPoolTimeoutError, ConnectionPoolClosedError):
            pass

    def release(self, endpoint: int, timeout: Optional[float]) -> None:
        """Give back what the user has, within a hook of something else."""
        holds = self.stage.running.holds
        if holds:
            conn = holds.pop()
            self.stage.note(f'releases {conn} within the hook')
            self.ledger.given_back(conn)
            self.ledger.pool.release(conn, conn.endpoint)

    def look(self, endpoint: int, timeout: Optional[float]) -> None:
        pool = self.ledger.pool
        assert pool.get_size() <= pool.total_max_size and pool.get_endpoint_pool_size(endpoint) <= pool.max_size

    def close(self, endpoint: int, timeout: Optional[float]) -> None:
        """Close the pool within its own hook: seldom, or little else would happen."""
        me = self.stage.running
        if self.choices.chance(3):
            self.close_pool(self.choices.pick(SHORT) if me.holds or me.borrows or self.choices.chance(2) else None)

    def close_pool(self, timeout: Optional[float]) -> None:
        """Close the pool."""
        self.stage.note(f'closes, timeout {timeout}')
        self.choices.tally['closes'] += 1
        if timeout is not None:
            self.ledger.force_from = min(self.ledger.force_from, self.stage.clock.now + timeout)
        me = self.stage.running
        me.closing += 1
        me.timeout = timeout
        try:
            self.ledger.pool.close(timeout)
            self.ledger.forced = self.ledger.is_forced and self.ledger.enough_workers
        finally:
            me.closing -= 1
            me.timeout = None

    def sleep(self, seconds: float) -> None:
        """Have time pass."""
        self.stage.note(f'sleeps {seconds} s')
        self.stage.sleep('sleeps', seconds)

    def throw(self, exc: BaseException) -> None:
        """Raise an exception, which somebody has to answer for."""
        self.stage.running.injected.append(exc)
        self.stage.running.to_be_told.append(exc)
        self.choices.tally[type(exc).__name__] += 1
        self.stage.note(f'raises {exc!r}')
        raise exc

    def end_hangs(self) -> bool:
        """Let go on what hangs. Returns whether anything does."""
        hanging, self.hanging = self.hanging, []
        for strand in hanging:
            self.stage.rouse(strand)
        return bool(hanging)


class Manager(BaseConnectionManager[int, Conn]):
    """Overrides only what it must.

    :param script: what its hooks do
    :param deaths: connections die if this is not 0, the oftener the lower it is
    """

    def __init__(self, script: Script, ledger: Ledger, deaths: int, dispose_timeout: Optional[float]):
        self.script = script
        self.ledger = ledger
        self.deaths = deaths
        self.dispose_timeout = dispose_timeout

    def create(self, endpoint: int, timeout: Optional[float] = None) -> Conn:
        bound = self.script.stage.running.timeout
        within = bound is None or (timeout is not None and timeout <= bound + 1e-6)
        self.ledger.demand(within, 'timeout of create', timeout, bound)
        self.ledger.begin_create(endpoint)
        try:
            self.script.play('creates', endpoint, timeout)
        except BaseException:
            self.ledger.not_created(endpoint)
            raise
        conn = self.ledger.created(endpoint)
        self.script.stage.note(f'has created {conn}')
        return conn

    def dispose(self, endpoint: int, conn: Conn, timeout: Optional[float] = None) -> None:
        if self.dispose_timeout is not None:
            within = timeout is not None and timeout <= self.dispose_timeout
            self.ledger.demand(within, 'dispose_timeout', timeout)
        told = self.script.stage.running.to_be_told
        before = len(told)
        try:
            self.run('dispose', endpoint, conn, timeout)
        except Exception:
            del told[before:]  # the pool logs it
            raise
        finally:
            self.ledger.disposed(endpoint)
            self.script.stage.note(f'has disposed of {conn}')

    def run(self, hook: str, endpoint: int, conn: Conn, timeout: Optional[float] = None) -> None:
        """Do what a hook with a connection does."""
        self.ledger.begin_hook(hook, endpoint, conn)
        before, conn.hook = conn.hook, hook
        try:
            self.script.play(f'{hook} {conn}', endpoint, timeout)
        finally:
            conn.hook = before

    def strictly(self, hook: str, endpoint: int, conn: Conn, timeout: Optional[float] = None) -> None:
        """The same for hooks after which, if they end badly, nobody may get the connection."""
        try:
            self.run(hook, endpoint, conn, timeout)
        except BaseException as exc:
            if isinstance(exc, TimeoutError) or not isinstance(exc, Exception):
                conn.unfit = f'{exc!r} in {hook}'
            raise


class HookedManager(Manager):
    """Overrides all hooks."""

    def check_aliveness(self, endpoint: int, conn: Conn, timeout: Optional[float] = None) -> bool:
        self.strictly('check_aliveness', endpoint, conn, timeout)
        if self.deaths and self.script.choices.chance(self.deaths):
            self.script.stage.note(f'finds {conn} dead')
            self.script.choices.tally['deaths'] += 1
            conn.unfit = 'dead'
            return False
        return True

    def on_acquire(self, endpoint: int, conn: Conn) -> None:
        self.strictly('on_acquire', endpoint, conn)

    def on_release(self, endpoint: int, conn: Conn) -> None:
        self.strictly('on_release', endpoint, conn)

    def on_connection_dead(self, endpoint: int, conn: Conn) -> None:
        self.ledger.demand(conn.unfit == 'dead' and not conn.reported, 'reported dead', conn)
        conn.reported = True
        self.run('on_connection_dead', endpoint, conn)

    def is_reusable(self, endpoint: int, conn: Conn, exc: BaseException) -> bool:
        try:
            self.run('is_reusable', endpoint, conn)
        except BaseException:
            conn.unfit = 'is_reusable failed'
            raise
        if self.script.choices.chance(2):
            conn.unfit = 'is not reusable'
            return False
        return True
