"""What happens to the servers while the load goes on. A phase ends in good weather, with every kind of pool served."""

import contextlib
import os
import random
import signal
import ssl
import threading
import time
from typing import Any, Callable, Dict, Iterable, List

from chaos.ledger import Ledger
from chaos.network import PATIENCE
from chaos.proxy import Fault, Weather
from chaos.world import ROLE, Load, ServerIsGone, Servers
from support.postgres import PostgresServer

__all__ = ('PHASES', 'Phases')

ALL_FAULTS = tuple(fault for fault in Fault if fault is not Fault.NONE)


class Phases:
    """Makes things happen, by a seed.

    :param servers: to whom
    :param load: what goes on meanwhile
    :param ledger: where it is taken down how long service was away
    :param dice: when and what
    """

    def __init__(self, servers: Servers, load: Load, ledger: Ledger, dice: random.Random):
        self._servers = servers
        self._load = load
        self._ledger = ledger
        self._dice = dice

    def run(self, name: str) -> None:
        """Run a phase, by its name in :data:`PHASES`."""
        try:
            PHASES[name](self)
        except ServerIsGone as exc:
            self._ledger.violate(f'{name}: {exc}')

    # -- faults of the network

    def calm(self) -> None:
        """Nothing happens."""
        self._load.pause(self._dice.uniform(0.2, 0.6))

    def storm(self) -> None:
        """Each connection may get a fault of any kind, and now and then all that are open do."""
        share = self._dice.uniform(0.1, 0.6)
        for proxy in self._servers.proxies:
            proxy.weather = Weather(ALL_FAULTS, share)
        for _ in range(self._dice.randrange(1, 5)):
            self._load.pause(self._dice.uniform(0.1, 0.6))
            self._dice.choice(self._servers.proxies).strike(self._dice.choice(ALL_FAULTS))
        self._recover()

    def silence(self) -> None:
        """The hosts are gone without a word; then they are back, and know nothing of old connections."""
        for proxy in self._servers.proxies:
            proxy.weather = Weather((Fault.MUTE,), 1.0)
            proxy.strike(Fault.DROP)
        self._load.pause(self._dice.uniform(0.2, 1.0))
        self._recover()

    def refusal(self) -> None:
        """The servers do not run, and their hosts say so."""
        for proxy in self._servers.proxies:
            proxy.go_down()
        self._load.pause(self._dice.uniform(0.1, 1.0))
        for proxy in self._servers.proxies:
            proxy.come_up()
        self._ledger.await_return(self._load.kinds, self._servers.await_all)

    def _recover(self) -> None:
        self._servers.recover()
        self._ledger.await_return(self._load.kinds, self._servers.await_all)

    # -- of PostgreSQL

    def orderly_restart(self) -> None:
        """It is restarted, and says goodbye to everybody."""
        self._restart('fast')

    def crash(self) -> None:
        """It is gone from one moment to the next, and started again."""
        self._restart('immediate')

    def _restart(self, mode: str) -> None:
        postgres = self._servers.postgres
        postgres.stop(mode)
        self._load.pause(self._dice.uniform(0.0, 0.4))
        starter = threading.Thread(target=postgres.start)
        starter.start()
        self._await_postgres()
        starter.join(PATIENCE)

    def terminated_backends(self) -> None:
        """The administrator ends sessions."""
        for _ in range(self._dice.randrange(1, 4)):
            self._terminate()
            self._load.pause(self._dice.uniform(0.0, 0.3))
        self._await_postgres()

    def killed_backend(self) -> None:
        """The process of a session is killed, upon which the server ends all sessions and recovers."""
        postgres = self._servers.postgres
        # one that ends with all the others tells when the server has noticed
        with contextlib.closing(sentinel(postgres)) as watch:
            while not self._kill():
                self._load.pause(0.01)
            wait_for_end(watch)
        self._await_postgres()

    def _kill(self) -> bool:
        """Kill a backend; tell whether there was one."""
        for pid in self._servers.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def crowd(self) -> None:
        """Others take all connections that the server admits."""
        hogs: List[Any] = []
        try:
            self._terminate()
            deadline = time.monotonic() + self._dice.uniform(0.3, 1.0)
            while time.monotonic() < deadline:
                take_all_connections(self._servers.postgres, hogs)
                self._load.pause(0.05)
                self._terminate()
        finally:
            for hog in hogs:
                hog.close()
        self._await_postgres()

    def _await_postgres(self) -> None:
        self._ledger.await_return(self._load.postgres_kinds, self._servers.await_postgres)

    def _terminate(self) -> None:
        """End sessions of the pools: all of them, or each with a probability."""
        share = self._dice.choice((0.5, 1.0))
        self._servers.postgres.query(
            'SELECT pg_terminate_backend(pid) FROM pg_stat_activity'
            " WHERE usename = %s AND application_name <> 'hog' AND random() <= %s", ROLE, share,
        )  # fmt: skip

    # -- of TLS

    def wrong_certificate(self) -> None:
        """Another server is in the place of the right one, with a certificate of its own or with another's name."""
        servers, ledger, kinds = self._servers, self._ledger, self._load.tls_kinds
        others = type(servers.certificates)()
        wrong = self._dice.choice((others.server(), servers.certificates.server('other.example')))
        # so that nobody is left with a connection to the right one which has not noticed its end
        servers.to_tls.go_down()
        servers.tls.replace(wrong)
        servers.to_tls.come_up()
        ledger.forbid(kinds)
        received = servers.tls.received
        self._load.pause(self._dice.uniform(0.3, 0.8))
        deadline = time.monotonic() + PATIENCE
        while not all(map(are_told, ledger.refused().values())) and time.monotonic() < deadline:
            self._load.pause(0.05)
        refused = ledger.refused()
        if servers.tls.received != received:
            ledger.violate('application data was sent to a server that is not to be trusted')
        ledger.allow()
        servers.tls.replace(servers.certificates.server())
        for kind, errors in refused.items():
            check_refusals(ledger, kind, errors)
        ledger.await_return(kinds, lambda: servers.await_questions(True))


#: what may happen, by its name
PHASES: Dict[str, Callable[[Phases], None]] = {
    name.replace('_', ' '): getattr(Phases, name)
    for name in (
        'calm', 'storm', 'silence', 'refusal', 'orderly_restart', 'crash', 'terminated_backends', 'killed_backend',
        'crowd', 'wrong_certificate',
    )
}  # fmt: skip


def are_told(errors: Iterable[BaseException]) -> bool:
    """Tell whether somebody has learnt that the certificate is not right."""
    return any(isinstance(exc, ssl.SSLCertVerificationError) for exc in errors)


def check_refusals(ledger: Ledger, kind: str, errors: Iterable[BaseException]) -> None:
    """Everybody has been told that the certificate is not right; or had no time to find out."""
    if not are_told(errors):
        ledger.violate(f'{kind}: nobody was told of the wrong certificate')
    for exc in errors:
        if isinstance(exc, OSError) and not isinstance(exc, (ssl.SSLCertVerificationError, TimeoutError)):
            ledger.violate(f'{kind}: instead of the certificate the error is about something else: {exc!r}')


def sentinel(postgres: PostgresServer) -> Any:
    import psycopg2

    return psycopg2.connect(**postgres.parameters())


def wait_for_end(conn: Any) -> None:
    """Wait until the server ends a session."""
    import psycopg2

    with contextlib.suppress(psycopg2.Error), conn.cursor() as cursor:
        cursor.execute('SELECT pg_sleep(60)')


def take_all_connections(postgres: PostgresServer, hogs: List[Any]) -> None:
    """Take, for a list, as many connections as the server admits."""
    import psycopg2

    with contextlib.suppress(psycopg2.OperationalError):
        while True:
            hogs.append(psycopg2.connect(**postgres.parameters(user=ROLE, application_name='hog')))
