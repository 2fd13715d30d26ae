"""Connect keywords: of which endpoint, as they are or to be asked for each time; and what errors tell of them."""

import re
from typing import Any, Callable, Iterable, Mapping, Sequence, Type, Union
from urllib.parse import unquote

from .._messages import show

__all__ = (
    'ConnectArguments', 'Keywords', 'check_arguments', 'check_by_endpoint', 'check_hook', 'check_names', 'check_number',
    'check_port', 'current_keywords', 'told_error',
)  # fmt: skip

Keywords = Mapping[str, Any]

#: of integers that are a number of seconds: a float has room for it
_LARGEST = 2**1000

#: for each endpoint, by its name, the connect keywords, or what is called before each connect and returns them
ConnectArguments = Mapping[str, Union[Keywords, Callable[[], Keywords]]]

#: names of connect keywords whose values are secret
_SECRET_NAME = re.compile(r'pass|pwd|secret|token|credential|key', re.IGNORECASE)

#: ``scheme://user:password@the rest``
_URL = re.compile(r'[\w+.-]+://[^\s:@/?#]*(?::(?P<password>[^\s:@/?#]*))?@(?P<rest>[^@]*)')
#: ``name=value``, separated from the next one by a space or an ampersand; or by semicolons, and spaces are part of both
_SETTING = re.compile(r'''\s*(\w+)\s*=\s*('[^']*'|"[^"]*"|[^\s&'"=]*)(?:[\s&]+|$)''')
_SETTING_OF_ODBC = re.compile(r'''\s*(\w[\w ]*)=\s*('[^']*'|"[^"]*"|[^;'"=]*)\s*(?:;\s*|$)''')


def check_arguments(name: str, arguments: Any) -> ConnectArguments:
    """Return connect arguments as they are. What is wrong with them is told without their values, which are secret.

    :param name: how the caller knows them
    :param arguments: what should be a mapping of mappings and callables
    :raises TypeError: they are not
    """
    check_by_endpoint(name, arguments)
    for endpoint, keywords in arguments.items():
        if not isinstance(keywords, Mapping) and not callable(keywords):
            kind = type(keywords).__name__
            place = f'{name}[{show(endpoint)}]'
            raise TypeError(f'{place} must be a mapping of connect keywords, or return one, not a {kind}')
        if isinstance(keywords, Mapping):
            check_names(keywords, f'{name}[{show(endpoint)}]')
    checked: ConnectArguments = arguments
    return checked


def check_by_endpoint(name: str, arguments: object) -> None:
    """Check that connect arguments are a mapping, whatever it contains.

    :param name: how the caller knows them, for the message
    :raises TypeError: they are none
    """
    if not isinstance(arguments, Mapping):
        kind = type(arguments).__name__
        raise TypeError(f'{name} must be a mapping of connect keywords by endpoint, not a {kind}')


def check_names(keywords: Mapping[Any, Any], what: str) -> None:
    """Check the names of keywords, whatever their values.

    :param what: what they are the keywords of, for the message
    :raises TypeError: one is no string
    """
    for name in keywords:
        if not isinstance(name, str):
            raise TypeError(f'the names of the keywords in {what} must be strings, not a {type(name).__name__}')


def check_number(keywords: Keywords, name: str, endpoint: object) -> None:
    """Check a connect keyword that is a number of seconds, or missing, or ``None``.

    :raises TypeError: it is something else
    :raises ValueError: it is NaN, or an integer too large for a float
    """
    value = keywords.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
        raise TypeError(f'{name} of endpoint {show(endpoint)} must be a number of seconds or None, not a {kind}')
    if value != value or (isinstance(value, int) and abs(value) > _LARGEST):
        raise ValueError(f'{name} of endpoint {show(endpoint)} must be a number of seconds or None, not {show(value)}')


def check_port(port: object, endpoint: object) -> None:
    """Check a port: of one that is out of range the system may use what is left of it in 16 bits.

    :raises TypeError: it is no whole number
    :raises ValueError: it is out of range
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f'the port of endpoint {show(endpoint)} must be an int, not a {type(port).__name__}')
    if not 0 < port < 65536:
        raise ValueError(f'the port of endpoint {show(endpoint)} must be from 1 to 65535, not {show(port)}')


def check_hook(name: str, hook: Any) -> None:
    """Check what is to be ``None`` or something to be called.

    :raises TypeError: it is neither
    """
    if hook is not None and not callable(hook):
        raise TypeError(f'{name} must be None or a callable, not a {type(hook).__name__}')


def current_keywords(source: Union[Keywords, Callable[[], Keywords]], endpoint: str) -> Keywords:
    """Return the connect keywords of an endpoint as they are now.

    :param source: the keywords, or what returns them
    :param endpoint: the name of the endpoint
    :raises TypeError: what was called returned something else
    """
    if isinstance(source, Mapping):
        return source
    keywords: Any = source()
    if not isinstance(keywords, Mapping):
        kind = type(keywords).__name__
        raise TypeError(f'the callable of endpoint {show(endpoint)} must return a mapping of keywords, not a {kind}')
    check_names(keywords, f'what the callable of endpoint {show(endpoint)} returns')
    return keywords


def told_error(exc: Exception, endpoint: str, keywords: Keywords, classes: Sequence[Type[Exception]]) -> Exception:
    """Return what a failed connect is to raise: its own exception, with a message that also names the endpoint.

    If the message quotes a secret, it is another exception that has none of the original one's contents.

    :param exc: what the driver raised; its message is changed
    :param endpoint: the name of the endpoint
    :param keywords: the connect keywords
    :param classes: the driver's classes of exceptions, the special ones before the general ones
    """
    where = f'endpoint {show(endpoint)}: '
    if quotes_secret(exc, keywords):
        kind = next((kind for kind in classes if isinstance(exc, kind)), ConnectionError)
        codes = ''.join(f' {show(arg)}' for arg in exc.args if isinstance(arg, int))
        return kind(f'{where}{type(exc).__name__}{codes}, whose message is not told, since it quotes a secret')
    if isinstance(exc, OSError) and exc.errno is not None:
        exc.strerror = where + str(exc.strerror)
    else:
        said = list(exc.args) or ['']
        # MySQL's have a number first, others an SQLSTATE: the message is the last text
        last = max((index for index, arg in enumerate(said) if isinstance(arg, str)), default=None)
        if last is not None:
            said[last] = where + said[last]
            exc.args = tuple(said)
    if where not in _text_of(exc) and hasattr(exc, 'add_note'):
        # its text is not made of its arguments
        exc.add_note(f'when connecting to endpoint {show(endpoint)}')
    return exc


def quotes_secret(exc: BaseException, keywords: Keywords) -> bool:
    """Tell whether the message of an error contains, or may contain, a secret of the connect keywords."""
    message = ' '.join([_text_of(exc), *map(_text_of, exc.args)])
    return any(secret in message for secret in _secrets(keywords))


def _text_of(value: object) -> str:
    """Return what a message would quote of a value: nothing if it has no text, such as an int of too many digits."""
    try:
        return str(value)
    except Exception:
        return ''


def _secrets(keywords: Keywords) -> Iterable[str]:
    for name, value in keywords.items():
        if isinstance(value, (bytes, bytearray)):
            value = bytes(value).decode('utf-8', 'replace')
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = _text_of(value)
            if _SECRET_NAME.search(name):
                yield from filter(None, {text})
            elif '@' in text or '=' in text:
                yield from _secrets_within(text)


def _secrets_within(text: str) -> Iterable[str]:
    """Find the secrets of a URL or a connection string. In one that is malformed anything may be one: each word is."""
    url = _URL.fullmatch(text)
    if url is not None:
        password = url['password'] or ''
        yield from filter(None, {password, unquote(password)})
    if '://' in text:
        settings = text.partition('?')[2]
        malformed = '@' in text and url is None
    else:
        settings, malformed = text, False
    end = 0
    for setting in (_SETTING_OF_ODBC if ';' in settings else _SETTING).finditer(settings):
        if setting.start() != end:
            break
        end = setting.end()
        value = setting[2].strip('\'" ')
        if value and _SECRET_NAME.search(setting[1]):
            yield from {value, unquote(value)}
    if malformed or end != len(settings):
        yield from _words(text)


def _words(text: str) -> Iterable[str]:
    return filter(None, re.split(r'\W+', text))
