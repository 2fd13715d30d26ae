"""Managers of streams for asyncio, each with an echo server that it can connect to, as the tests share them."""

import pathlib
from typing import Any

import pytest
from support.servers import EchoServer

from generic_connection_pool.asyncio import BaseConnectionManager
from generic_connection_pool.contrib.socket_async import Stream, TcpStreamConnectionManager
from generic_connection_pool.contrib.unix_async import UnixSocketStreamConnectionManager

Manager = BaseConnectionManager[Any, Stream]


@pytest.fixture
def echo(any_echo: EchoServer) -> EchoServer:
    return any_echo


@pytest.fixture
def endpoint(echo: EchoServer) -> Any:
    return pathlib.Path(echo.address) if echo.is_unix else (echo.address[0], echo.port)


@pytest.fixture
def manager(echo: EchoServer, request: pytest.FixtureRequest) -> Manager:
    if echo.is_unix:
        return UnixSocketStreamConnectionManager()
    return TcpStreamConnectionManager(request.getfixturevalue('certificates').client() if echo.is_tls else None)
