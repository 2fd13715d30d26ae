"""What is known of a Redis session without asking: which commands leave something behind, which replies are owed."""

from typing import Any, List, Tuple

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.redis_server import RedisServer, server as server  # noqa: E402

from generic_connection_pool.contrib._redis_session import (  # noqa: E402
    CHANGE,
    HARMLESS,
    UNCERTAIN,
    Session,
    judge_pong,
    kinds_of,
    new_ping,
    reset_commands,
    was_reset,
)

#: the commands of servers that are not harmless, or are not known: all others are
NOT_HARMLESS = '''
    ASKING AUTH CLIENT|CACHING CLIENT|CAPA CLIENT|IMPORT-SOURCE CLIENT|NO-EVICT CLIENT|NO-TOUCH CLIENT|REPLY
    CLIENT|SETINFO CLIENT|SETNAME CLIENT|TRACKING DEBUG DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE
    QUIT READONLY READWRITE REPLCONF RESET SCRIPT|DEBUG SELECT SHUTDOWN SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC
    UNSUBSCRIBE UNWATCH WATCH
'''


def session_after(*commands: Any, errors: Tuple[int, ...] = ()) -> Session:
    """A session in which commands were sent and answered one by one, some of them with an error."""
    session = Session()
    for number, command in enumerate(commands):
        session.sends(kinds_of([command.split()]))
        session.answered(with_error=number in errors)
    return session


def test_each_command_of_a_server_is_known_to_be_harmless_or_is_not(server: RedisServer) -> None:
    commands = {name.decode().upper() for name in server.ask('COMMAND LIST')}
    doubtful = {name for name in commands if kinds_of([name.split('|')]) != [HARMLESS]} - {'CLIENT', 'SCRIPT'}
    assert doubtful == commands & set(NOT_HARMLESS.split())


@pytest.mark.parametrize('command, kind', [
    (('get', 'a'), HARMLESS), ((b'GET', 'a'), HARMLESS), (('CONFIG GET', 'port'), HARMLESS),
    ((bytearray(b'CONFIG get'), 'port'), HARMLESS), (('JSON.GET', 'a'), HARMLESS), (('json.get', 'a'), HARMLESS),
    (('CLIENT', 'id'), HARMLESS), (('client id',), HARMLESS), ((memoryview(b'CLIENT ID'),), HARMLESS),
    (('CLIENT', b'setname', 'a'), CHANGE), (('CLIENT SETNAME', 'a'), CHANGE), (('CLIENT',), UNCERTAIN),
    (('CLIENT', 'UNHEARD-OF'), UNCERTAIN), (('SCRIPT', 'DEBUG', 'YES'), UNCERTAIN), (('SCRIPT', 'LOAD', ''), HARMLESS),
    (('select', 1), CHANGE), (('UNHEARD-OF',), CHANGE), (('unheard.of',), CHANGE), (('GETSOMETHING',), CHANGE),
    (('',), UNCERTAIN), ((b' ',), UNCERTAIN), (('subscribe', 'a'), UNCERTAIN),
])  # fmt: skip
def test_a_command_is_known_however_it_is_written(command: Any, kind: int) -> None:
    assert kinds_of([command]) == [kind]


@pytest.mark.parametrize('commands, errors, is_changed', [
    (['SET a 1', 'GET a'], (), False),
    (['INCR a'], (0,), False),
    (['MULTI', 'SET a 1', 'EXEC'], (), False),
    (['MULTI', 'SET a 1', 'DISCARD'], (), False),
    (['WATCH a', 'MULTI', 'SET a 1', 'EXEC'], (), False),
    (['WATCH a', 'UNWATCH'], (), False),
    (['MULTI', 'EXEC', 'INCR a'], (2,), False),
    (['MULTI', 'SET a 1'], (), True),
    (['WATCH a'], (), True),
    (['WATCH a', 'MULTI', 'UNWATCH'], (), True),
    (['WATCH a', 'EXEC'], (1,), True),
    # who may not send MULTI has ended nothing by EXEC
    (['WATCH a', 'MULTI', 'EXEC'], (1, 2), True),
    (['MULTI', 'NONSENSE', 'EXEC'], (1, 2), True),
    (['MULTI', 'SELECT 1', 'EXEC'], (), True),
    (['SELECT 1', 'SELECT 0'], (), True),
])  # fmt: skip
def test_a_session_is_changed_unless_all_is_as_it_was(commands: List[str], errors: Any, is_changed: bool) -> None:
    session = session_after(*commands, errors=errors)
    assert session.is_at_rest
    assert session.is_changed == is_changed


def test_a_session_is_at_rest_when_as_many_replies_were_read_as_commands_sent() -> None:
    session = Session()
    session.sends(kinds_of([('GET', 'a'), ('GET', 'b')]))
    assert not session.is_at_rest
    session.answered()
    assert not session.is_at_rest
    session.answered(with_error=True)
    assert session.is_at_rest
    # one that nobody has asked for
    session.answered()
    assert not session.is_at_rest


def test_a_session_about_which_nothing_is_certain_is_never_at_rest_again() -> None:
    assert not session_after('SUBSCRIBE a', 'UNSUBSCRIBE a').is_at_rest
    session = Session()
    session.is_uncertain()
    assert not session.is_at_rest


def test_no_two_pings_are_alike() -> None:
    (first, _), (second, _) = new_ping(), new_ping()
    assert first != second


@pytest.mark.parametrize('received, verdict', [
    (b'', None), (b'$5', None), (b'$5\r\ngcp-', None), (b'$5\r\ngcp-7\r\n', True),
    (b'$5\r\ngcp-7\r\n+OK\r\n', False), (b'$5\r\ngcp-6\r\n', False), (b'+PONG\r\n', False), (b'-ERR what\r\n', False),
    (b'>3\r\n', False), (b'-', None), (b'-NO', None), (b'-NOAUTH', False), (b'-NOPERM no', None),
    (b'-NOPERM no\r\n', True),
    (b'-NOPERM no\r\n+OK\r\n', False), (b'-BUSY a script\r\n', True), (b'-MISCONF disk\r\n', True),
])  # fmt: skip
def test_only_its_own_answer_or_one_refusal_is_taken_for_the_answer_to_a_ping(received: bytes, verdict: Any) -> None:
    assert judge_pong(received, b'$5\r\ngcp-7\r\n') is verdict


@pytest.mark.parametrize('arguments, commands', [
    ((2, (), None, 0), [(b'RESET',)]),
    ((3, (), None, 0), [(b'RESET',), (b'HELLO', 3)]),
    ((3, ('pw',), None, 0), [(b'RESET',), (b'HELLO', 3, b'AUTH', b'default', 'pw')]),
    ((3, ('me', 'pw'), 'name', 4), [
        (b'RESET',), (b'HELLO', 3, b'AUTH', 'me', 'pw'), (b'CLIENT', b'SETNAME', 'name'), (b'SELECT', 4),
    ]),
    ((2, ('pw',), None, 1), [(b'RESET',), (b'AUTH', 'pw'), (b'SELECT', 1)]),
    ((2, ('me', 'pw'), None, 0), [(b'RESET',), (b'AUTH', 'me', 'pw')]),
])  # fmt: skip
def test_a_reset_repeats_what_the_handshake_has_set(arguments: Any, commands: Any) -> None:
    assert reset_commands(*arguments) == commands


@pytest.mark.parametrize('replies, expected', [
    ([b'RESET', {b'proto': 3}, b'OK', b'OK'], True),
    ([b'OK', {b'proto': 3}, b'OK', b'OK'], False),
    ([b'RESET', [b'proto', 2], b'OK', b'OK'], False),
    ([b'RESET', {b'proto': 3}, b'QUEUED', b'OK'], False),
    ([b'RESET', {b'proto': 3}, b'OK', None], False),
])
def test_the_replies_to_a_reset_are_told_from_those_to_other_commands(replies: Any, expected: bool) -> None:
    assert was_reset(reset_commands(3, (), 'name', 4), replies) is expected
