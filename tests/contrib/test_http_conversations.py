"""Which conversations leave an HTTP connection fit for the next user, against a real server.

Each test has one user converse and leave, and looks at what the next one gets: the right answer in any case, and over
the same connection only if the first conversation was over.
"""

import contextlib
import http.client
import io
import threading
from typing import Any, Callable, Iterator, List

import pytest
from support.certificates import Certificates
from support.servers import PATIENCE, eventually
from support.servers_http import HttpServer, http_server

from generic_connection_pool.contrib.http import HttpConnection, HttpConnectionManager, HttpEndpoint
from generic_connection_pool.threading import ConnectionPool

HttpPool = ConnectionPool[HttpEndpoint, HttpConnection]
Conversation = Callable[[HttpConnection], Any]


@pytest.fixture(params=['http', 'https'])
def server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[HttpServer]:
    with http_server(certificates.server() if request.param == 'https' else None) as server:
        yield server


@pytest.fixture
def pool(certificates: Certificates) -> Iterator[HttpPool]:
    pool: HttpPool = ConnectionPool(HttpConnectionManager(certificates.client(), io_timeout=PATIENCE), max_size=1)
    yield pool
    pool.close(timeout=5)


def get(conn: http.client.HTTPConnection, path: str, method: str = 'GET') -> bytes:
    conn.request(method, path)
    return conn.getresponse().read()


def is_reused_after(pool: HttpPool, server: HttpServer, conversation: Conversation) -> bool:
    """Have two users, one after the other, and tell whether they had the same connection."""
    with pool.connection(server.endpoint) as conn:
        conversation(conn)
    with pool.connection(server.endpoint) as conn:
        assert get(conn, '/echo/mine') == b'/echo/mine'
    assert pool.get_size() == 1
    assert server.accepted in (1, 2)
    return bool(server.accepted == 1)


def begin_post(conn: HttpConnection, *headers: Any, path: str = '/post') -> None:
    conn.putrequest('POST', path)
    for name, value in headers:
        conn.putheader(name, value)
    conn.endheaders()


# -- whole conversations


def read_nothing_of_nothing(conn: HttpConnection) -> None:
    conn.request('HEAD', '/echo/head')
    assert conn.getresponse().getheader('Content-Length') == '10'


def read_in_pieces(conn: HttpConnection) -> None:
    conn.request('GET', '/echo/pieces')
    with conn.getresponse() as response:
        assert b''.join(iter(lambda: response.read(5), b'')) == b'/echo/pieces'


def read_to_the_last_byte_but_not_past_it(conn: HttpConnection) -> None:
    conn.request('GET', '/echo/exact')
    with conn.getresponse() as response:
        body = b''
        while len(body) < 11:
            body += response.read1(11 - len(body))
    assert body == b'/echo/exact'


def read_a_line(conn: HttpConnection) -> None:
    conn.request('GET', '/echo/line')
    with conn.getresponse() as response:
        assert response.readline() == b'/echo/line'


def read_chunks(conn: HttpConnection) -> None:
    conn.request('GET', '/chunked')
    with conn.getresponse() as response:
        assert sum(map(len, iter(lambda: response.read(777), b''))) == 101001


def read_chunks_into_a_buffer(conn: HttpConnection) -> None:
    conn.request('GET', '/chunked')
    with conn.getresponse() as response, io.BufferedReader(response) as reader:
        assert len(reader.read()) == 101001


def ask_several_things(conn: HttpConnection) -> None:
    assert get(conn, '/echo/1') == b'/echo/1'
    read_nothing_of_nothing(conn)
    read_chunks(conn)
    assert get(conn, '/echo/4') == b'/echo/4'


def post_bytes(conn: HttpConnection) -> None:
    conn.request('POST', '/post', body=b'posted')
    assert conn.getresponse().read() == b'posted'


def post_a_file(conn: HttpConnection) -> None:
    conn.request('POST', '/post', body=io.BytesIO(b'x' * 50000))
    assert conn.getresponse().read() == b'x' * 50000


def post_an_iterable(conn: HttpConnection) -> None:
    conn.request('POST', '/post', body=iter([b'several ', b'', b'chunks']))
    assert conn.getresponse().read() == b'several chunks'


def post_piece_by_piece(conn: HttpConnection) -> None:
    begin_post(conn, ('Content-Length', 10))
    conn.send(b'first')
    conn.send(bytearray(b'other'))
    assert conn.getresponse().read() == b'firstother'


def do_nothing(conn: HttpConnection) -> None:
    pass


@pytest.mark.parametrize('conversation', [
    read_nothing_of_nothing, read_in_pieces, read_to_the_last_byte_but_not_past_it, read_a_line, read_chunks,
    read_chunks_into_a_buffer, ask_several_things, post_bytes, post_a_file, post_an_iterable, post_piece_by_piece,
    do_nothing,
])
def test_a_connection_is_reused_after_a_whole_conversation(
    pool: HttpPool, server: HttpServer, conversation: Conversation
) -> None:
    assert is_reused_after(pool, server, conversation)


@pytest.mark.parametrize('answer', [
    b'HTTP/1.1 204 No Content\r\n\r\n',
    b'HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n',
    b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\nX-Y: Z\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
    b'HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok',
    b'HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n',
    b'HTTP/1.1 500 Sorry\r\nContent-Length: 5\r\n\r\nsorry',
    b'HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=x\r\nContent-Length: 2\r\n\r\nok',
], ids=['204', '304', '100', 'length', '1.0-keep-alive', 'no-chunk', '500', 'multipart'])
def test_a_connection_is_reused_after_a_response_that_ends_by_itself(
    pool: HttpPool, server: HttpServer, answer: bytes
) -> None:
    server.scripts['/script'] = answer, False
    assert is_reused_after(pool, server, lambda conn: get(conn, '/script'))


# -- conversations that are not over


def leave_before_asking(conn: HttpConnection) -> None:
    conn.putrequest('GET', '/echo/never')
    conn.putheader('X-Y', 'Z')


def leave_after_a_request_that_cannot_be_made(conn: HttpConnection) -> None:
    with pytest.raises(http.client.InvalidURL):
        conn.request('GET', '/with a blank')


def leave_before_the_answer(conn: HttpConnection) -> None:
    conn.request('GET', '/echo/late')


def leave_the_body_unread(conn: HttpConnection) -> None:
    conn.request('GET', '/echo/unread')
    conn.getresponse()


def close_the_response_half_way(conn: HttpConnection) -> None:
    # http.client takes the response for finished, and what is left of it is in the buffer that it drops
    conn.request('GET', '/echo/half-read')
    with conn.getresponse() as response:
        assert response.read(5) == b'/echo'


def close_the_response_between_chunks(conn: HttpConnection) -> None:
    conn.request('GET', '/chunked')
    with conn.getresponse() as response:
        assert response.read(1001) == b'x' * 1001


def close_the_response_before_its_second_half_has_come(conn: HttpConnection) -> None:
    conn.request('GET', '/held')
    with conn.getresponse() as response:
        # nothing is left in any buffer, nor has anything arrived
        assert response.read(4) == b'one '


def ask_on_though_a_response_is_unread(conn: HttpConnection) -> None:
    conn.request('GET', '/echo/1')
    conn.getresponse()
    conn.request('GET', '/echo/2')


def ask_on_after_half_a_response(conn: HttpConnection) -> None:
    close_the_response_half_way(conn)
    # the rest was in the buffer, so it goes well, which nobody can know
    assert get(conn, '/echo/2') == b'/echo/2'


def time_out_while_reading(conn: HttpConnection) -> None:
    conn.request('GET', '/held')
    response = conn.getresponse()
    conn.sock.settimeout(0.02)
    with pytest.raises(TimeoutError):
        response.read()


def time_out_while_waiting(conn: HttpConnection) -> None:
    conn.sock.settimeout(0.02)
    begin_post(conn, ('Content-Length', '5'))
    with pytest.raises(TimeoutError):
        conn.getresponse()


def promise_more_than_is_sent(conn: HttpConnection) -> None:
    begin_post(conn, ('Content-Length', '100'), path='/early')
    assert conn.getresponse().read() == b'no need'


def send_more_than_is_promised(conn: HttpConnection) -> None:
    begin_post(conn, ('Content-Length', '2'))
    conn.send(b'ok and more')
    assert conn.getresponse().read() == b'ok'


def send_no_last_chunk(conn: HttpConnection) -> None:
    begin_post(conn, ('Transfer-Encoding', 'chunked'), path='/early')
    conn.send(b'2\r\nok\r\n')
    assert conn.getresponse().read() == b'no need'


def send_what_cannot_be_counted(conn: HttpConnection) -> None:
    begin_post(conn, ('Content-Length', '2'))
    conn.send(io.BytesIO(b'ok'))
    assert conn.getresponse().read() == b'ok'


def fail_in_the_middle_of_a_body(conn: HttpConnection) -> None:
    def body() -> Iterator[bytes]:
        yield b'begun'
        raise ValueError

    with pytest.raises(ValueError):
        conn.request('POST', '/post', body=body())


def promise_two_lengths(conn: HttpConnection) -> None:
    begin_post(conn, ('Content-Length', '2'), ('Content-Length', '2'))
    conn.send(b'ok')
    assert conn.getresponse().read() == b'ok'


def say_that_the_client_closes(conn: HttpConnection) -> None:
    conn.request('GET', '/script', headers={'Connection': 'X-Y, Close'})
    assert conn.getresponse().read() == b'ok'


def make_a_tunnel(conn: HttpConnection) -> None:
    assert get(conn, '/early', 'CONNECT') == b'no need'


def close_the_connection(conn: HttpConnection) -> None:
    assert get(conn, '/echo/1') == b'/echo/1'
    conn.close()


def close_the_socket(conn: HttpConnection) -> None:
    conn.sock.close()


def replace_the_class_of_responses(conn: HttpConnection) -> None:
    conn.response_class = http.client.HTTPResponse  # type: ignore[assignment]
    assert get(conn, '/echo/1') == b'/echo/1'


def send_what_is_no_request(conn: HttpConnection) -> None:
    conn.send(b'GET /echo/raw HTTP/1.1\r\n\r\n')


@pytest.mark.parametrize('conversation', [
    leave_before_asking, leave_after_a_request_that_cannot_be_made, leave_before_the_answer, leave_the_body_unread,
    close_the_response_half_way, close_the_response_between_chunks, close_the_response_before_its_second_half_has_come,
    ask_on_though_a_response_is_unread, ask_on_after_half_a_response, time_out_while_reading, time_out_while_waiting,
    promise_more_than_is_sent, send_more_than_is_promised, send_no_last_chunk, send_what_cannot_be_counted,
    fail_in_the_middle_of_a_body, promise_two_lengths, say_that_the_client_closes, make_a_tunnel, close_the_connection,
    close_the_socket, replace_the_class_of_responses, send_what_is_no_request,
])
def test_a_connection_is_not_reused_when_a_conversation_is_not_over(
    pool: HttpPool, server: HttpServer, conversation: Conversation
) -> None:
    server.scripts['/early'] = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nno need', False
    server.scripts['/script'] = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', False
    assert not is_reused_after(pool, server, conversation)


HEAD = b'HTTP/1.1 200 OK\r\n'


@pytest.mark.parametrize('answer, then_close', [
    (b'HTTP/1.1 200 OK\r\n\r\nup to the end', True),
    (HEAD + b'Connection: close\r\nContent-Length: 2\r\n\r\nok', False),
    (HEAD + b'Connection: X-Y\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok', False),
    (b'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok', False),
    (b'HTTP/1.0 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok', False),
    (HEAD + b'Content-Length: 200\r\n\r\ntoo short', True),
    (HEAD + b'Content-Length: 2\r\n\r\nok and more', False),
    (HEAD + b'Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfor b!', False),
    (HEAD + b'Content-Length: 2\r\nContent-Length: 8\r\n\r\nok', False),
    (HEAD + b'Content-Length: +2\r\n\r\nok', False),
    (HEAD + b'Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', False),
    (HEAD + b'Content-Length: 2\r\nTransfer-Encoding: gzip, chunked\r\n\r\nok', False),
    (HEAD + b'Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n', False),
    (b'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', False),
    (HEAD + b'Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n', True),
    (HEAD + b'Transfer-Encoding: chunked\r\n\r\n\r\n', False),
    (HEAD + b'Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n', False),
    (HEAD + b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n', False),
    (HEAD + b'Content-Length: 2\r\nno header\r\nX-Y: Z\r\n\r\nok', False),
    (b'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n', False),
    (b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: X\r\nConnection: upgrade\r\n\r\n', False),
    (b'HTTP/1.1 204 No Content\r\n\r\nbut some', False),
    (b'nonsense\r\n\r\n', False),
    (b'HTTP/2 200 OK\r\n\r\n', False),
    (b'', True),
], ids=[
    'up-to-the-end', 'close', 'close-in-second-header', '1.0', '1.0-half-keep-alive', 'too-short', 'too-long',
    'two-responses', 'two-lengths', 'odd-length', 'length-and-chunked', 'other-coding', 'two-codings', '1.0-chunked',
    'no-last-chunk', 'empty-chunk-size', 'bad-chunk-size', 'after-last-chunk', 'no-header', '103', '101', '204-body',
    'nonsense', 'http-2', 'no-answer',
])
def test_a_connection_is_not_reused_after_a_response_that_ends_it_or_does_not_tell_where_it_ends(
    pool: HttpPool, server: HttpServer, answer: bytes, then_close: bool
) -> None:
    def ask(conn: HttpConnection) -> None:
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            get(conn, '/script')

    server.scripts['/script'] = answer, then_close
    assert not is_reused_after(pool, server, ask)


def test_a_body_after_a_response_to_head_is_noticed(pool: HttpPool, server: HttpServer) -> None:
    server.scripts['/script'] = HEAD + b'Content-Length: 2\r\n\r\nok', False
    assert not is_reused_after(pool, server, lambda conn: get(conn, '/script', 'HEAD'))


def test_a_request_that_the_server_cuts_off_is_not_continued_by_the_next_user(
    pool: HttpPool, server: HttpServer
) -> None:
    server.scripts['/early'] = b'HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n', True

    def post(conn: HttpConnection) -> None:
        with pytest.raises(OSError):
            conn.request('POST', '/early', body=b'x' * (64 << 20))

    assert not is_reused_after(pool, server, post)


# -- conversations that an exception ends


@pytest.mark.parametrize('error, reused', [
    (ValueError, True), (TimeoutError, False), (ConnectionResetError, False), (http.client.HTTPException, False),
    (KeyboardInterrupt, False), (GeneratorExit, False),
])
def test_an_error_after_a_whole_conversation_costs_the_connection_only_if_it_may_be_the_connections(
    pool: HttpPool, server: HttpServer, error: Any, reused: bool
) -> None:
    with pytest.raises(error), pool.connection(server.endpoint) as conn:
        get(conn, '/echo/1')
        raise error
    assert is_reused_after(pool, server, do_nothing) == reused


@pytest.mark.parametrize('error', [ValueError, TimeoutError, KeyboardInterrupt])
@pytest.mark.parametrize('conversation', [
    leave_before_asking, leave_before_the_answer, leave_the_body_unread, close_the_response_half_way
])
def test_an_error_in_mid_conversation_costs_the_connection(
    pool: HttpPool, server: HttpServer, conversation: Conversation, error: Any
) -> None:
    with pytest.raises(error), pool.connection(server.endpoint) as conn:
        conversation(conn)
        raise error
    assert pool.get_size() == 0
    assert not is_reused_after(pool, server, do_nothing)


# -- what is left of a connection


@pytest.mark.parametrize('path', ['/echo/unread', '/chunked', '/close'])
def test_a_response_that_is_read_after_its_connection_was_released_raises_instead_of_ending(
    pool: HttpPool, server: HttpServer, path: str
) -> None:
    server.scripts['/close'] = b'HTTP/1.1 200 OK\r\n\r\nup to the end', True
    with pool.connection(server.endpoint) as conn:
        conn.request('GET', path)
        response = conn.getresponse()
    for read in (response.read, response.read1, response.readline, response.read, response.readlines):
        with pytest.raises(http.client.NotConnected, match='before its connection was released'):
            read()
    response.close()


def test_a_response_that_was_read_stays_at_its_end(pool: HttpPool, server: HttpServer) -> None:
    server.scripts['/close'] = b'HTTP/1.1 200 OK\r\n\r\nup to the end', True
    for path in ('/echo/read', '/close'):
        with pool.connection(server.endpoint) as conn:
            conn.request('GET', path)
            response = conn.getresponse()
            assert response.read()
        assert response.read() == b''


def test_a_connection_that_has_been_closed_is_not_opened_again_by_a_request(pool: HttpPool, server: HttpServer) -> None:
    server.scripts['/close'] = HEAD + b'Connection: close\r\nContent-Length: 2\r\n\r\nok', True
    with pool.connection(server.endpoint) as conn:
        assert get(conn, '/close') == b'ok'
        with pytest.raises(http.client.NotConnected, match=f"'127.0.0.1', port {server.server_port}, has been closed"):
            conn.request('GET', '/echo/again')
        conn.auto_open = 1
        with pytest.raises(http.client.NotConnected):
            conn.connect()
    assert server.accepted == 1


def test_what_a_user_has_set_is_restored(pool: HttpPool, server: HttpServer, capsys: Any) -> None:
    with pool.connection(server.endpoint) as conn:
        conn.sock.settimeout(0.5)
        conn.timeout = 0.5
        conn.set_debuglevel(1)
        conn.host, conn.blocksize, conn.auto_open = 'elsewhere', 1, 1
        get(conn, '/echo/1')
        capsys.readouterr()
    with pool.connection(server.endpoint) as again:
        assert again is conn
        assert again.sock.gettimeout() == PATIENCE
        get(again, '/echo/2')
        assert (again.host, again.blocksize, again.auto_open) == ('127.0.0.1', 8192, 0)
        assert again.timeout != 0.5
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('hint, is_used', [('timeout=0', False), ('timeout=60, max=5', True), ('max=5', True)])
def test_the_time_for_which_the_server_says_that_it_keeps_a_connection_is_kept_to(
    pool: HttpPool, server: HttpServer, hint: str, is_used: bool
) -> None:
    answer = f'HTTP/1.1 200 OK\r\nKeep-Alive: {hint}\r\nContent-Length: 0\r\n\r\n'
    server.scripts['/script'] = answer.encode(), False
    assert is_reused_after(pool, server, lambda conn: get(conn, '/script')) == is_used


@pytest.mark.parametrize('path', ['/held', '/up-to-the-end'])
def test_a_user_who_is_reading_when_the_pool_is_closed_by_force_gets_an_error_and_not_the_end(
    pool: HttpPool, server: HttpServer, path: str
) -> None:
    # it would end wherever the connection does, which stays open
    server.scripts['/up-to-the-end'] = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nnot all', False
    responses: List[http.client.HTTPResponse] = []
    outcome: List[Any] = []

    def use() -> None:
        with pool.connection(server.endpoint) as conn:
            conn.request('GET', path)
            with conn.getresponse() as response:
                responses.append(response)
                try:
                    outcome.append(response.read())
                except OSError as exc:
                    outcome.append(exc)

    user = threading.Thread(target=use)
    user.start()
    eventually(lambda: responses)
    pool.close(timeout=0.02)
    user.join(PATIENCE)
    assert not user.is_alive()
    assert isinstance(outcome[0], OSError)
