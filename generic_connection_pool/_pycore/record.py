"""One pooled connection, as the core sees it."""

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ('DISPOSING', 'GONE', 'IDLE_CORE', 'IDLE_EXTRA', 'INHERITED', 'LENT', 'RETURNING', 'Record')

#: idle, one of the first ``min_idle`` of its endpoint
IDLE_CORE = 0
#: idle, beyond ``min_idle``
IDLE_EXTRA = 1
#: acquired by a user
LENT = 2
#: given back by its user, but a hook has yet to run
RETURNING = 3
#: somebody is closing it; it counts towards the limits until that is done
DISPOSING = 4
#: no longer of the pool
GONE = 5
#: of the process that this one was forked from
INHERITED = 6


class Record:
    """One connection and its place in the lists of its endpoint, in the expiry heap and in the table of lent ones.

    A record is in exactly one state, and in the one list of its endpoint that belongs to the state.
    """

    __slots__ = (
        'conn', 'key', 'endpoint', 'state', 'prev', 'next', 'chain', 'created', 'expires', 'deadline', 'sequence',
        'heap_index', 'uses', 'holder', 'beneficiary', 'claimed', 'core',
    )  # fmt: skip

    def __init__(self, conn: Any, key: Any, created: float, expires: float):
        if getattr(self, 'core', 0) or getattr(self, 'heap_index', -1) >= 0:
            raise RuntimeError('the record is in use')
        self.conn = conn
        #: the key of its endpoint
        self.key = key
        self.endpoint: Optional['Endpoint'] = None
        #: serial number of the core that it belongs to, 0 for none
        self.core = 0
        self.state = GONE
        #: neighbours in the list of the endpoint that it is in
        self.prev: Optional[Record] = None
        self.next: Optional[Record] = None
        #: next record of the same connection object in the table of lent ones
        self.chain: Optional[Record] = None
        self.created = created
        #: when its max_lifetime is over
        self.expires = expires
        #: while idle: when it is to be disposed of
        self.deadline = expires
        #: when it became idle, counted in releases of the pool: breaks ties between deadlines
        self.sequence = 0
        #: where its entry is in the expiry heap, -1 for nowhere
        self.heap_index = -1
        #: how often it has been lent: tells one loan from the next
        self.uses = 0
        #: identifier of the thread that holds it
        self.holder = 0
        #: the endpoint whose waiters get the slot once it is disposed of
        self.beneficiary: Optional['Endpoint'] = None
        #: somebody has taken it upon himself to dispose of it
        self.claimed = False

    def claim(self) -> bool:
        """Take it upon oneself to dispose of the connection; ``False`` if somebody else has."""
        claimed, self.claimed = self.claimed, True
        return not claimed

    def __repr__(self) -> str:
        state = ('idle', 'idle extra', 'lent', 'returning', 'disposing', 'gone', 'inherited')[self.state]
        return f'<Record {state} uses={self.uses}>'
