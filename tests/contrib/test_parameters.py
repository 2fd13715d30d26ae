"""What errors of connecting tell: the endpoint, and no secret."""

import sqlite3
from typing import Any, Dict, List

import pytest

from generic_connection_pool.contrib._parameters import told_error

CLASSES = (sqlite3.OperationalError, sqlite3.Error)


def tell(exc: Exception, **keywords: Any) -> Exception:
    return told_error(exc, 'main', keywords, CLASSES)


@pytest.mark.parametrize('exc, args', [
    (sqlite3.Error('no'), ("endpoint 'main': no",)),
    (sqlite3.Error(), ("endpoint 'main': ",)),
    (sqlite3.Error(1045, 'no'), (1045, "endpoint 'main': no")),
    (sqlite3.Error('08001', 'no'), ('08001', "endpoint 'main': no")),
])  # fmt: skip
def test_an_error_stays_what_it_is_and_its_message_names_the_endpoint(exc: Exception, args: Any) -> None:
    told = tell(exc)
    assert told is exc
    assert told.args == args


def test_an_error_of_the_system_keeps_its_number() -> None:
    told = tell(ConnectionRefusedError(111, 'refused'))
    assert isinstance(told, ConnectionRefusedError)
    assert str(told) == "[Errno 111] endpoint 'main': refused"


def test_an_error_whose_text_is_not_made_of_its_arguments_is_noted() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            return 'odd'

    assert str(tell(Odd('no'))) == 'odd'
    assert getattr(tell(Odd('no')), '__notes__', ["'main'"])[0].endswith("'main'")


QUOTED: List[Dict[str, Any]] = [
    {'password': 'zyqx'},
    {'passwd': b'zyqx'},
    {'pin_token': 'zyqx'},
    {'dsn': 'postgresql://user:zyqx@host/db'},
    {'dsn': 'postgresql://user:zy%71x@host/db'},
    {'dsn': 'postgresql://user:a@host/db?sslpassword=zyqx'},
    {'dsn': 'host=x password = zyqx'},
    {'dsn': "host=x password='zyqx'"},
    {'dsn': 'DRIVER=x;UID=me;PWD=zyqx;'},
    {'dsn': 'host=x zyqx y=5'},
    {'url': 'mysql://user:zyqx@x@host/db'},
]


@pytest.mark.parametrize('keywords', QUOTED, ids=str)
def test_what_quotes_a_secret_is_not_told(keywords: Dict[str, Any]) -> None:
    told = tell(sqlite3.OperationalError(7, 'bad thing near "zyqx"'), **keywords)
    assert type(told) is sqlite3.OperationalError
    assert 'zyqx' not in repr(told)
    assert str(told) == "endpoint 'main': OperationalError 7, whose message is not told, since it quotes a secret"


def test_what_is_no_error_of_the_driver_and_quotes_a_secret_becomes_one_of_the_connection() -> None:
    assert type(tell(ValueError('zyqx'), password='zyqx')) is ConnectionError


@pytest.mark.parametrize('keywords', [
    {'password': ''},
    {'password': None},
    {'password': 'other'},
    {'user': 'zyqx'},
    {'host': 'zyqx', 'ssl': True},
    {'dsn': 'postgresql://zyqx:other@zyqx:5432/zyqx?user=zyqx'},
    {'dsn': 'postgresql://zyqx/zyqx'},
    {'dsn': 'host=zyqx port=5 password=other'},
    {'dsn': 'host=zyqx; Pwd = "other words"; user=me'},
], ids=str)  # fmt: skip
def test_what_quotes_none_is_told(keywords: Dict[str, Any]) -> None:
    assert str(tell(sqlite3.Error('bad thing near "zyqx"'), **keywords)) == 'endpoint \'main\': bad thing near "zyqx"'
