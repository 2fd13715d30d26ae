"""The connection pool for asyncio."""

from ..common import ConnectionT, EndpointT
from .manager import BaseConnectionManager
from .pool import ConnectionPool

__all__ = ('BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT')
