"""What the managers of redis-py connections share: the parameters of endpoints, and errors that tell no secrets."""

import logging
import os
import re
import ssl
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, TypeVar, Union
from urllib.parse import urlsplit

import redis

from .._messages import show
from ._parameters import check_names, check_number, check_port

__all__ = (
    'RESET_GRACE',
    'ConnectTimeoutError',
    'Keywords',
    'RedisParameters',
    'check_endpoints',
    'connect_failure',
    'connect_keywords',
    'construct',
    'credential_provider',
    'pong_timeout',
    'warn_of_failed_reset',
)

#: how one endpoint is reached: connect keywords of redis-py, or a URL (``redis://``, ``rediss://``, ``unix://``)
RedisParameters = Union[str, Mapping[str, Any]]

Keywords = Dict[str, Any]
ConnectionT = TypeVar('ConnectionT')

#: how long (in seconds) a server may take to answer a PING, and to reset a session, if nobody has set another bound
PONG_GRACE = RESET_GRACE = 5.0

#: what the pool does, so that connections must not
_FOR_THE_POOL = {
    **dict.fromkeys(('retry', 'retry_on_error', 'retry_on_timeout'), 'a pooled connection does not retry'),
    'health_check_interval': 'the pool checks connections when they are acquired',
    **dict.fromkeys(('connection_class', 'connection_pool', 'max_connections', 'single_connection_client', 'timeout'),
                    'it is a parameter of redis-py\'s own pool or client'),
}  # fmt: skip


class ConnectTimeoutError(redis.TimeoutError, TimeoutError):
    """Connecting to an endpoint took too long: to redis-py's users one of its errors, to all others a TimeoutError."""


def check_endpoints(endpoints: Any, parse_url: Callable[[str], Any]) -> Mapping[str, Any]:
    """Return the parameters of all endpoints as they are. What is wrong with them is told without their values.

    :raises TypeError: they are no mapping of mappings, URLs and callables
    :raises ValueError: a URL cannot be parsed, or a keyword is not for pooled connections
    """
    if not isinstance(endpoints, Mapping):
        kind = type(endpoints).__name__
        raise TypeError(f'endpoints must be a mapping of connect parameters by endpoint, not a {kind}')
    for endpoint, source in endpoints.items():
        if not callable(source):
            connect_keywords(endpoint, source, parse_url)
    return endpoints


def connect_keywords(endpoint: str, parameters: Any, parse_url: Callable[[str], Any]) -> Tuple[str, Keywords]:
    """Return the kind of connection, ``tcp``, ``tls`` or ``unix``, and the keywords of its class.

    :param parse_url: redis-py's own function for that
    :raises TypeError: parameters or keywords are of the wrong type
    :raises ValueError: a URL cannot be parsed, or a keyword is not for pooled connections
    """
    if isinstance(parameters, str):
        keywords = _parse(endpoint, parameters, parse_url)
    elif isinstance(parameters, Mapping):
        keywords = dict(parameters)
    else:
        kind = type(parameters).__name__
        raise TypeError(f'the parameters of endpoint {show(endpoint)} must be connect keywords or a URL, not a {kind}')
    check_names(keywords, f'the parameters of endpoint {show(endpoint)}')
    for keyword, reason in _FOR_THE_POOL.items():
        if keyword in keywords:
            whose = f'those of endpoint {show(endpoint)}'
            raise ValueError(f'{keyword} is not for connections of a pool, as {whose}: {reason}')
    _check_values(endpoint, keywords)
    return _kind_of(endpoint, keywords), keywords


def _check_values(endpoint: str, keywords: Keywords) -> None:
    """Check what redis-py does not look at before it uses it."""
    for name in ('socket_connect_timeout', 'socket_timeout'):
        check_number(keywords, name, endpoint)
    host, port = keywords.get('host', ''), keywords.get('port', 1)
    if not isinstance(host, str):
        raise TypeError(f'the host of endpoint {show(endpoint)} must be a string, not a {type(host).__name__}')
    # redis-py takes digits as well
    if not isinstance(port, str):
        check_port(port, endpoint)


def _parse(endpoint: str, url: str, parse_url: Callable[[str], Any]) -> Keywords:
    """Parse a URL. What its parser complains of is not told: it may quote from the password."""
    keywords: Optional[Keywords] = None
    try:
        scheme, _, path, _, _ = urlsplit(url)
        # a password with a slash in it looks like a path, and redis-py takes no offence
        if scheme == 'unix' or re.fullmatch(r'/?\d*', path):
            keywords = dict(parse_url(url))
    except ValueError:
        pass
    if keywords is None:
        raise ValueError(
            f'the URL of endpoint {show(endpoint)} cannot be parsed; it begins with redis://, rediss:// or unix://, its'
            f' path is the number of a database, and a password may need percent-encoding'
        )
    # one of redis-py's classes: 'ssl' and 'path' say the same
    if keywords.pop('connection_class', None) is not None and scheme == 'rediss':
        keywords['ssl'] = True
    return keywords


def _kind_of(endpoint: str, keywords: Keywords) -> str:
    """Return the kind of connection, and take out of the keywords what only says that."""
    encrypts = keywords.pop('ssl', False)
    # what is merely false must not mean that nothing is encrypted
    if not isinstance(encrypts, bool):
        raise TypeError(f'ssl of endpoint {show(endpoint)} must be a bool, not a {type(encrypts).__name__}')
    if 'unix_socket_path' in keywords:
        keywords['path'] = keywords.pop('unix_socket_path')
    if not encrypts and any(keyword.startswith('ssl_') for keyword in keywords):
        raise ValueError(f'endpoint {show(endpoint)} has parameters for TLS but is not to use it: ssl=True is missing')
    if 'path' not in keywords:
        return 'tls' if encrypts else 'tcp'
    if encrypts or 'host' in keywords or 'port' in keywords:
        raise ValueError(f'endpoint {show(endpoint)} has the path of a UNIX socket, and a host, a port or TLS as well')
    return 'unix'


def construct(endpoint: str, connection_class: Callable[..., ConnectionT], keywords: Keywords) -> ConnectionT:
    """Return a connection object that is not connected.

    :raises TypeError: a keyword is unknown
    :raises ValueError: a value is not to redis-py's liking
    """
    try:
        return connection_class(**keywords)
    except TypeError as exc:
        # speaks of names, and at times of types
        raise TypeError(f'the parameters of endpoint {show(endpoint)} are wrong: {exc}') from None
    except (ValueError, redis.RedisError) as exc:
        wrong = _tellable(exc, (value for value in keywords.values() if isinstance(value, str)))
    raise ValueError(f'the parameters of endpoint {show(endpoint)} are wrong: {wrong}')


def credential_provider(conn: Any) -> Any:
    """Return what tells the credentials of a connection, ``None`` if it has none."""
    provider = conn.credential_provider
    if provider is None and (conn.username or conn.password):
        provider = redis.UsernamePasswordCredentialProvider(conn.username, conn.password)
    return provider


def pong_timeout(socket_timeout: Optional[float]) -> float:
    """Return for how many seconds to wait for the answer to a PING, given the timeout of a connection."""
    return PONG_GRACE if socket_timeout is None else socket_timeout


def warn_of_failed_reset(logger: logging.Logger, endpoint: str, exc: BaseException) -> None:
    """Log that a connection was closed because its session could not be reset.

    :param logger: that of the caller, whose place the record tells
    """
    # no more of the error: servers quote what they do not understand, credentials included
    kind = type(exc).__name__
    logger.warning(
        'a connection to %s was closed: its session could not be reset: %s', show(endpoint), kind, stacklevel=2
    )


def connect_failure(
    endpoint: str, exc: BaseException, secrets: Iterable[object], timed_out: bool, timeout: Optional[float] = None
) -> Exception:
    """Return the error to raise for a failed connect: redis-py's own class, the endpoint, and the reason.

    It has no cause and no context unless that is an error of the system, because servers quote from what they do not
    understand, ``HELLO 3 AUTH user password`` among it.

    :param exc: what has happened
    :param secrets: what must not be told
    :param timed_out: whether the time was up
    :param timeout: how long (in seconds) it was to take at the most, if that is known
    """
    root = exc.__context__ if isinstance(exc, redis.RedisError) and isinstance(exc.__context__, OSError) else exc
    if timed_out or isinstance(root, (TimeoutError, redis.TimeoutError)):
        bound = 'too long' if timeout is None else f'longer than {timeout:.3g} seconds'
        return ConnectTimeoutError(f'connecting to endpoint {show(endpoint)} took {bound}')
    if isinstance(root, OSError):
        failure: Exception = redis.ConnectionError(f'could not connect to endpoint {show(endpoint)}: {_reason(root)}')
        failure.__cause__ = root
        return failure
    for kind in (redis.AuthenticationError, redis.BusyLoadingError, redis.ResponseError):
        if isinstance(exc, kind):
            return kind(f'endpoint {show(endpoint)} does not let us in: {_tellable(exc, secrets)}')
    return redis.ConnectionError(f'could not connect to endpoint {show(endpoint)}: {_tellable(exc, secrets)}')


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f'the certificate is not to be trusted: {_without_quotes(error.verify_message)}'
    if isinstance(error, ssl.SSLError) or error.errno is None:
        return _without_quotes(error.strerror or str(error))
    # that of a failed look-up of a name is none that strerror() knows
    return error.strerror if error.errno < 0 and error.strerror else os.strerror(error.errno)


def _tellable(exc: BaseException, secrets: Iterable[object]) -> str:
    text = _without_quotes(str(exc))
    if not text or any(str(secret) in text for secret in secrets if secret):
        return type(exc).__name__
    return text


def _without_quotes(text: str) -> str:
    """Return the part of a message before the first thing it quotes."""
    unquoted: List[str] = re.split('["\'`]', text, maxsplit=1)
    return unquoted[0].rstrip(' ,:;') if unquoted else text
