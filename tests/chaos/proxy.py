"""A TCP proxy that injects faults: into new connections by a seed, and into all that are open when it is told to."""

import asyncio
import collections
import enum
import itertools
import random
import socket
from typing import Counter, NamedTuple, Optional, Set, Tuple, Union

from chaos.network import Listener, Network, reset

#: a port of this host, or the path of a UNIX socket
Upstream = Union[int, str]

Stream = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: seconds by which a piece of data is late at the most
LONGEST_DELAY = 0.08
#: a fault strikes within the first so many bytes of its direction
REACH = 300


class Fault(enum.Enum):
    """What may become of a connection."""

    NONE = 'none'
    #: each piece of data comes late
    DELAY = 'delay'
    #: each byte comes on its own
    TRICKLE = 'trickle'
    #: from some byte on nothing arrives any more, neither here nor there, and nobody is told
    DROP = 'drop'
    #: the stream ends, orderly, in the middle of a message
    CUT = 'cut'
    #: the connection is reset, in the middle of a message
    RESET = 'reset'
    #: the connection is accepted, and nothing is ever answered
    MUTE = 'mute'


#: faults of which a client learns nothing
SILENT = (Fault.DROP, Fault.MUTE)


class Weather(NamedTuple):
    """What new connections have to expect: which faults, and how many of the connections get one (0 to 1)."""

    faults: Tuple[Fault, ...] = ()
    share: float = 0.0


class Link:
    """One connection through the proxy.

    :param fault: what is to become of it
    :param dice: the seeded random numbers of this connection
    """

    def __init__(self, fault: Fault, dice: random.Random):
        self.fault = fault
        self.dice = dice
        #: the direction that a fault strikes in, and the byte of it
        self.strikes_answers = dice.random() < 0.7
        self.reach = dice.randrange(REACH)
        #: done when the link is to be reset
        self.forgotten = asyncio.get_running_loop().create_future()
        self.struck = False

    @property
    def is_silent(self) -> bool:
        """Whether nothing passes any more, of which nobody is told."""
        return self.struck and self.fault in SILENT

    def forget(self) -> None:
        """Have the link reset, or ended if that is its fault."""
        if not self.forgotten.done():
            self.forgotten.set_result(None)


class End(Exception):
    """A fault has ended the link."""


class Proxy(Listener):
    """Forwards what it gets, faults aside. Its counts and its weather may be read and set from any thread.

    :param network: where it runs
    :param upstream: where it connects to
    :param seed: of the faults
    """

    def __init__(self, network: Network, upstream: Upstream, seed: int = 0):
        super().__init__(network)
        self.weather = Weather()
        #: the faults that have struck
        self.injected: Counter[Fault] = collections.Counter()
        self._upstream = upstream
        self._seed = seed
        self._numbers = itertools.count()
        self._links: Set[Link] = set()
        network.call(self.listen())

    # -- from any thread

    def strike(self, fault: Fault) -> None:
        """Inject a fault into every open connection, now."""
        self.network.call(self._strike(fault))

    def recover(self) -> None:
        """Good weather. Connections that hang are reset, as by a host that is back and knows nothing of them."""
        self.weather = Weather()
        self.network.call(self._recover())

    def go_down(self) -> None:
        """Reset all connections and refuse new ones, until :meth:`come_up`. No old one is left when this returns."""
        self.network.call(self._go_down())

    def come_up(self) -> None:
        self.network.call(self.listen())

    def stop(self) -> None:
        self.network.call(self.refuse())
        self.network.call(self.end_all())

    # -- in the loop

    async def _strike(self, fault: Fault) -> None:
        for link in self._links:
            ends = fault in (Fault.RESET, Fault.CUT)
            if ends or not link.is_silent:
                link.fault, link.reach = fault, 0
                self._note(link, fault)
            if ends:
                link.forget()

    async def _recover(self) -> None:
        for link in self._links:
            if link.is_silent:
                link.forget()
            else:
                link.fault = Fault.NONE

    async def _go_down(self) -> None:
        await self.refuse()
        for link in self._links:
            link.forget()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        # for the sockets of those that have just ended to be closed
        await asyncio.sleep(0)

    def _note(self, link: Link, fault: Fault) -> None:
        link.struck = True
        self.injected[fault] += 1

    def _new_link(self) -> Link:
        dice = random.Random(f'{self._seed} {next(self._numbers)}')
        weather = self.weather
        fault = Fault.NONE
        if dice.random() < weather.share:
            fault = dice.choice(weather.faults)
        return Link(fault, dice)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self._new_link()
        self._links.add(link)
        far: Optional[asyncio.StreamWriter] = None
        pumps = []
        try:
            if link.fault is Fault.MUTE:
                self._note(link, Fault.MUTE)
                await link.forgotten
                return reset(writer)
            try:
                far_reader, far = await self._connect()
            except OSError:
                return reset(writer)
            near, there = (reader, writer), (far_reader, far)
            pumps = [
                asyncio.ensure_future(self._pump(link, near, there, not link.strikes_answers)),
                asyncio.ensure_future(self._pump(link, there, near, link.strikes_answers)),
            ]
            await asyncio.wait({*pumps, link.forgotten}, return_when=asyncio.FIRST_COMPLETED)
            if link.is_silent:
                # nor does the other end learn that this one has gone
                await link.forgotten
            if link.forgotten.done() and link.fault is not Fault.CUT:
                return reset(writer)
            errors = [pump.exception() for pump in pumps if pump.done()]
            if link.fault is Fault.RESET or any(isinstance(error, OSError) for error in errors):
                return reset(writer)
            # what was forwarded is to arrive, then the end
            writer.close()
            await asyncio.wait({asyncio.ensure_future(writer.wait_closed())}, timeout=1.0)
        finally:
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            if far is not None:
                far.transport.abort()

    async def _connect(self) -> Stream:
        if isinstance(self._upstream, str):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection('127.0.0.1', self._upstream)

    async def _pump(self, link: Link, source: Stream, target: Stream, has_fault: bool) -> None:
        """Forward one direction to its end.

        :param has_fault: whether it is in this direction that the link's fault strikes
        """
        reader, writer = source[0], target[1]
        sock = writer.get_extra_info('socket')
        if sock.family != getattr(socket, 'AF_UNIX', None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            data = await reader.read(1 << 16)
            if not data:
                return
            if link.fault is Fault.NONE:
                writer.write(data)
            else:
                await self._forward_badly(link, data, writer, has_fault)
            await writer.drain()

    async def _forward_badly(self, link: Link, data: bytes, writer: asyncio.StreamWriter, has_fault: bool) -> None:
        if link.fault in (Fault.DELAY, Fault.TRICKLE) and not link.struck:
            self._note(link, link.fault)
        if link.fault is Fault.DELAY:
            await asyncio.sleep(link.dice.uniform(0.0, LONGEST_DELAY))
            writer.write(data)
        elif link.fault is Fault.TRICKLE:
            for byte in data:
                writer.write(bytes((byte,)))
                # raises if the connection is lost
                await writer.drain()
                await asyncio.sleep(0)
        elif link.is_silent:
            pass
        elif not has_fault or len(data) <= link.reach:
            if has_fault:
                link.reach -= len(data)
            writer.write(data)
        else:
            writer.write(data[:link.reach])
            self._note(link, link.fault)
            if link.fault in (Fault.CUT, Fault.RESET):
                await writer.drain()
                raise End
