"""What the managers of SSH libraries share: where connect keywords and host keys come from, and what errors say."""

import base64
import hashlib
import os
import pathlib
from typing import Any, Callable, Generic, Hashable, Iterable, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union

from .._messages import show
from ..common import EndpointT
from ._endpoints import find_endpoint
from ._parameters import check_names

#: where OpenSSH, too, notes which hosts it knows
KNOWN_HOSTS = '~/.ssh/known_hosts'

#: how often (in seconds) an idle connection says that it is still there
KEEPALIVE = 30.0

#: OpenSSH's server lets a connection have ten sessions at a time; so many may be taken up by what earlier users left
MOST_LINGERING = 4

#: what a server says of files, in answer to a question of SFTP; the connection is as good as before
FILE_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)

#: the name of a file, or those of several
Paths = Union[str, 'os.PathLike[str]', Sequence[Union[str, 'os.PathLike[str]']]]

#: the connect keywords of each endpoint, or what returns those of a given one
Parameters = Union[Mapping[EndpointT, Mapping[str, Any]], Callable[[EndpointT], Any]]

LoadedT = TypeVar('LoadedT')

#: what tells one state of a file from another
_Signature = Optional[Tuple[int, ...]]


def check_parameters(parameters: Any) -> Any:
    """Return connect keywords as they are. What is wrong with them is told without their values, which are secret.

    :raises TypeError: they are neither a mapping of mappings nor callable
    """
    if isinstance(parameters, Mapping):
        for endpoint, params in parameters.items():
            _check_keywords(params, f'parameters[{show(endpoint)}]')
    elif not callable(parameters):
        kind = type(parameters).__name__
        raise TypeError(f'parameters must be a mapping of connect keywords by endpoint, or a callable, not a {kind}')
    return parameters


def look_up(parameters: Any, endpoint: Hashable) -> Any:
    """Return the connect keywords of an endpoint, or what a callable returns for it.

    :raises KeyError: the endpoint is not known. Its message tells those that are, and nothing of their parameters
    """
    if not isinstance(parameters, Mapping):
        return parameters(endpoint)
    return find_endpoint(parameters, endpoint)


def keywords(params: Any, endpoint: Hashable, host: str) -> Mapping[str, Any]:
    """Return connect keywords as they are, if they are such.

    :param host: the keyword that names the host, which there must be
    :raises TypeError: they are no mapping
    :raises ValueError: they name no host
    """
    what = f'the connect keywords of endpoint {show(endpoint)}'
    _check_keywords(params, what)
    if not isinstance(params.get(host), str) or not params[host]:
        raise ValueError(f'{what} must have a {host!r}, the name or address of a host')
    checked: Mapping[str, Any] = params
    return checked


def _check_keywords(params: Any, what: str) -> None:
    if not isinstance(params, Mapping):
        raise TypeError(f'{what} must be a mapping of connect keywords, not a {type(params).__name__}')
    check_names(params, what)


def check_seconds(value: Optional[float], name: str) -> Optional[float]:
    """Return a number of seconds, more than 0, or ``None``.

    :raises TypeError: it is no number
    :raises ValueError: it is 0, negative or not finite
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{name} must be a number of seconds or None, not {show(value)}')
    if not 0.0 < value < float('inf'):
        raise ValueError(f'{name} must be more than 0 seconds, and finite, or None, not {show(value)}')
    return value


def where(endpoint: Hashable, host: str, port: object) -> str:
    """Return what messages call an endpoint."""
    address = f'[{host}]' if ':' in host else host
    if isinstance(port, int):
        address += f':{port}'
    return f'endpoint {show(endpoint)} ({address})'


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a public key as OpenSSH shows it."""
    return 'SHA256:' + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')


def unknown_host_key(there: str, kind: str, digest: str, source: str) -> str:
    """Return what to say of a host whose key is nowhere noted."""
    return f'the host key of {there} is not known: it has shown {kind} {digest}, of which {source} knows nothing'


def changed_host_key(there: str, kind: str, digest: str, source: str) -> str:
    """Return what to say of a host that has another key than is noted."""
    return (
        f'the host key of {there} is not the one that is known: it has shown {kind} {digest}, and {source} has '
        f'another or revokes it; somebody may be listening in, or the host has got a new key'
    )


class KnownHostsFiles(Generic[LoadedT]):
    """What is noted of hosts in files, which are read again when they have changed. One that is missing is empty."""

    def __init__(self, paths: Paths, load: Callable[[Iterable[str]], LoadedT]):
        """
        :param paths: the name of a file or the names of several; ``~`` is the user's home directory
        :param load: reads files that exist
        :raises TypeError: they are no names of files
        """
        names = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, os.PathLike)) for name in names):
            raise TypeError(f'known_hosts must be the path of a file, or a list of such, not {show(paths)}')
        self._paths: List[pathlib.Path] = [pathlib.Path(name).expanduser() for name in names]
        self._load = load
        self._state: Optional[Tuple[List[_Signature], LoadedT]] = None

    def __str__(self) -> str:
        return ', '.join(map(str, self._paths)) or 'an empty list of files'

    def read(self) -> LoadedT:
        """Return what the files say.

        :raises OSError: a file is there but cannot be read
        """
        signatures = [_signature(path) for path in self._paths]
        state = self._state
        if state is None or state[0] != signatures:
            present = [str(path) for path, signature in zip(self._paths, signatures) if signature is not None]
            self._state = state = signatures, self._load(present)
        return state[1]


def _signature(path: pathlib.Path) -> _Signature:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
