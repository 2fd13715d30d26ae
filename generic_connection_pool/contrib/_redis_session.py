"""What the server still remembers of a Redis connection's user: kept by noting each command and counting each reply.

Redis answers commands in order, so a connection is between two conversations exactly if as many replies were read as
commands were sent. And most commands leave nothing behind in the session. Both is known here without asking the server.
"""

import itertools
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple

import redis

__all__ = ('Packed', 'Session', 'judge_pong', 'kinds_of', 'new_ping', 'reset_commands', 'was_reset')

# What a command does to the session, beside being answered once.
HARMLESS, CHANGE, UNCERTAIN, MULTI, WATCH, UNWATCH, END = range(7)

#: commands of Redis and Valkey that leave nothing behind in the session
_HARMLESS = frozenset('''
    ACL APPEND BGREWRITEAOF BGSAVE BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH
    BZMPOP BZPOPMAX BZPOPMIN CLUSTER CLUSTERSCAN COMMAND COMMANDLOG CONFIG COPY DBSIZE DECR DECRBY DEL DELEX DELIFEQ
    DIGEST DUMP ECHO EVAL EVALSHA EVALSHA_RO EVAL_RO EXISTS EXPIRE EXPIREAT EXPIRETIME FAILOVER FCALL FCALL_RO FLUSHALL
    FLUSHDB FUNCTION GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO
    GEOSEARCH GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET
    HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL
    HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT INFO KEYS LASTSAVE LATENCY LCS LINDEX
    LINSERT LLEN LMOVE LMPOP LOLWUT LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MEMORY MGET MIGRATE MODULE MOVE MSET
    MSETEX MSETNX OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST PING PSETEX PTTL
    PUBLISH PUBSUB RANDOMKEY RENAME RENAMENX REPLICAOF RESTORE RESTORE-ASKING ROLE RPOP RPOPLPUSH RPUSH RPUSHX SADD SAVE
    SCAN SCARD SDIFF SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE SINTER SINTERCARD SINTERSTORE SISMEMBER SLAVEOF SLOWLOG
    SMEMBERS SMISMEMBER SMOVE SORT SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUBSTR SUNION SUNIONSTORE SWAPDB
    TIME TOUCH TTL TYPE UNLINK VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VREM VSETATTR
    VSIM WAIT WAITAOF XACK XACKDEL XADD XAUTOCLAIM XCFGSET XCLAIM XDEL XDELEX XGROUP XINFO XLEN XPENDING XRANGE XREAD
    XREADGROUP XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT
    ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX
    ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE
'''.split())

#: those that do not count one reply for one command, change what replies look like, or leave what no RESET takes away
_UNCERTAIN = frozenset('''
    HELLO HIMPORT MONITOR PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT REPLCONF RESET SHUTDOWN SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE
    SYNC UNSUBSCRIBE
'''.split())

#: the commands whose second word decides: the second words that are harmless, and the kind of all others
_CONTAINERS: Dict[str, Tuple[FrozenSet[str], int]] = {
    'CLIENT': (
        frozenset('GETNAME GETREDIR HELP ID INFO KILL LIST PAUSE TRACKINGINFO UNBLOCK UNPAUSE'.split()), UNCERTAIN,
    ),
    'SCRIPT': (frozenset('EXISTS FLUSH HELP KILL LOAD SHOW'.split()), UNCERTAIN),
}
#: of these others, what RESET takes back
_UNDONE_BY_RESET = frozenset(('CLIENT SETNAME', 'CLIENT NO-EVICT', 'CLIENT NO-TOUCH'))

#: modules that work on data and know no sessions
_HARMLESS_PREFIXES = ('BF.', 'CF.', 'CMS.', 'FT.', 'JSON.', 'TDIGEST.', 'TOPK.', 'TS.')

_KINDS: Dict[object, int] = {
    **dict.fromkeys(_HARMLESS, HARMLESS), **dict.fromkeys(_UNCERTAIN, UNCERTAIN),
    'MULTI': MULTI, 'WATCH': WATCH, 'UNWATCH': UNWATCH, 'EXEC': END, 'DISCARD': END,
}  # fmt: skip


class Packed(List[Any]):
    """Packed commands, as redis-py wants them to be sent, along with what they do to the session."""

    def __init__(self, chunks: Iterable[Any], kinds: Sequence[int]):
        super().__init__(chunks)
        self.kinds = kinds


def kinds_of(commands: Iterable[Sequence[Any]]) -> List[int]:
    """Return what each command does to the session."""
    return [_kind(command) for command in commands]


def _kind(command: Sequence[Any]) -> int:
    name = command[0]
    if type(name) is str and name in _KINDS:
        return _KINDS[name]
    words = _text(name).upper().split()
    if not words:
        return UNCERTAIN
    container = _CONTAINERS.get(words[0])
    if container is not None:
        return _kind_of_contained(container, (*words, *map(_text, command[1:2]))[:2])
    known = _KINDS.get(words[0])
    if known is None:
        # one nobody has told us of may change anything; that it is answered once is found out by the reset
        return HARMLESS if words[0].startswith(_HARMLESS_PREFIXES) else CHANGE
    return known


def _kind_of_contained(container: Tuple[FrozenSet[str], int], words: Sequence[str]) -> int:
    harmless, others = container
    words = [word.upper() for word in words]
    if words[-1] in harmless:
        return HARMLESS
    return CHANGE if ' '.join(words) in _UNDONE_BY_RESET else others


def _text(word: object) -> str:
    if isinstance(word, (bytes, bytearray, memoryview)):
        return bytes(word).decode('latin-1')
    return str(word)


class Session:
    """What is known of a connection's session, from what was sent and read since it was as new.

    The order of things makes it safe to interrupt: a command counts before it is sent, and a reply when it was read.
    """

    __slots__ = ('_changed', '_failed', '_in_multi', '_owed', '_transacted', '_uncertain', '_watching')

    def __init__(self) -> None:
        self._owed = 0
        self._uncertain = self._changed = False
        self._in_multi = self._watching = self._transacted = self._failed = False

    @property
    def is_at_rest(self) -> bool:
        """Whether all replies were read, so that what is read next is the answer to what is sent next."""
        return self._owed == 0 and not self._uncertain

    @property
    def is_changed(self) -> bool:
        """Whether the next user might notice this one, unless the session is reset."""
        # a transaction with an error among its replies may have gone another way than its commands tell: it may be open
        return self._changed or self._in_multi or self._watching or self._transacted and self._failed

    def sends(self, kinds: Sequence[int]) -> None:
        """Note commands that are about to be sent."""
        self._owed += len(kinds)
        for kind in kinds:
            if kind != HARMLESS:
                self._note(kind)

    def sends_packed(self, commands: Any) -> None:
        """Note packed commands about to be sent. Of any that were not packed here nobody knows what they do."""
        if isinstance(commands, Packed):
            self.sends(commands.kinds)
        else:
            self.is_uncertain()

    def answered(self, with_error: bool = False) -> None:
        """Note a reply that was read to its end."""
        self._owed -= 1
        if not self._transacted:
            return
        if with_error:
            self._failed = True
        elif not (self._owed or self._in_multi or self._watching or self._failed):
            # the transaction went as its commands tell
            self._transacted = False

    def raised(self, exc: BaseException) -> None:
        """Note what was raised where a reply was read. An error that the server reports is a reply, too."""
        if isinstance(exc, redis.ResponseError):
            self.answered(with_error=True)
        else:
            self.is_uncertain()

    def is_uncertain(self) -> None:
        """Note that from now on nobody can tell how many replies are still to come."""
        self._uncertain = True

    def _note(self, kind: int) -> None:
        if kind == CHANGE:
            self._changed = True
        elif kind == UNCERTAIN:
            self._uncertain = True
        else:
            self._transacted = True
            if kind == MULTI:
                self._in_multi = True
            elif kind == WATCH:
                self._watching = True
            elif kind == END and self._in_multi:
                self._in_multi = self._watching = False
            elif kind == UNWATCH and not self._in_multi:
                self._watching = False


def reset_commands(
    protocol: int, credentials: Sequence[Any], client_name: Optional[str], db: object
) -> List[Tuple[Any, ...]]:
    """Return the commands that make a session as new as the handshake has left it. They go in one round trip.

    :param protocol: the version of the protocol, 2 or 3
    :param credentials: nothing, a password, or a user's name and password
    :param client_name: the name of the connection, if it has one
    :param db: the number of the database
    """
    commands: List[Tuple[Any, ...]] = [(b'RESET',)]
    if protocol == 3:
        user_and_password = credentials if len(credentials) != 1 else (b'default', *credentials)
        commands.append((b'HELLO', 3, *((b'AUTH', *user_and_password) if credentials else ())))
    elif credentials:
        commands.append((b'AUTH', *credentials))
    if client_name:
        commands.append((b'CLIENT', b'SETNAME', client_name))
    if db:
        commands.append((b'SELECT', db))
    return commands


def was_reset(commands: Sequence[Tuple[Any, ...]], replies: Sequence[object]) -> bool:
    """Tell whether these are the replies to :func:`reset_commands`, read without decoding, and not one is another's."""
    for (name, *_), reply in zip(commands, replies):
        if name == b'HELLO':
            if not isinstance(reply, dict):
                return False
        elif reply != (b'RESET' if name == b'RESET' else b'OK'):
            return False
    return True


_numbers = itertools.count(1)

#: errors with which a server that is alive may refuse a PING: the user may not, a script is running, the disk is full,
#: or it is a replica without its master
_REFUSALS = (b'-NOPERM ', b'-BUSY ', b'-MISCONF ', b'-MASTERDOWN ')


def new_ping() -> Tuple[bytes, bytes]:
    """Return a PING as it is sent, and its answer, which is that of no other: no leftover reply is mistaken for it."""
    token = b'gcp-%d' % next(_numbers)
    answer = b'$%d\r\n%b\r\n' % (len(token), token)
    return b'*2\r\n$4\r\nPING\r\n' + answer, answer


def judge_pong(received: bytes, answer: bytes) -> Optional[bool]:
    """Tell whether what was received is the answer to a PING; ``None`` if more has to come for that to be told."""
    if received == answer:
        return True
    if answer.startswith(received):
        return None
    if not any(refusal.startswith(received[:len(refusal)]) for refusal in _REFUSALS):
        return False
    end = received.find(b'\r\n')
    if end < 0:
        return None
    return end == len(received) - 2
