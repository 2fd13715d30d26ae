"""The only switch between the compiled core and its pure-Python twin. The rest of the library imports the core from here.

``GENERIC_CONNECTION_POOL_PURE`` decides: unset, the compiled core if it is installed, else the twin; ``1``, the twin;
``0``, the compiled core. A compiled core that is there but cannot be loaded is an error, never a silent fallback.
"""

import importlib.util
from typing import TYPE_CHECKING

from ._switch import COMPILED_MODULES, VARIABLE, pure_setting

__all__ = (
    'AsyncPool',
    'CLOSED',
    'COLLECT',
    'CONNECTION',
    'Core',
    'DISPOSE',
    'DISPOSING',
    'HOOKS',
    'RETURNING',
    'Record',
    'ReentryError',
    'SLOT',
    'ThreadPool',
    'Ticket',
    'WAITING',
    'core_implementation',
    'current_holder',
    'holder_of',
    'monotonic',
)


def _use_compiled() -> bool:
    pure = pure_setting()
    if pure is not None:
        return not pure
    if importlib.util.find_spec('_cpool') is None:
        return False
    return any(importlib.util.find_spec(f'_cpool.{name}') is not None for name in COMPILED_MODULES)


if TYPE_CHECKING or not _use_compiled():
    from ._pycore.async_pool import COLLECT, DISPOSE, HOOKS, AsyncPool
    from ._pycore.core import Core
    from ._pycore.holders import current_holder, holder_of
    from ._pycore.lock import ReentryError, monotonic
    from ._pycore.record import DISPOSING, RETURNING, Record
    from ._pycore.thread_pool import ThreadPool
    from ._pycore.waiters import CLOSED, CONNECTION, SLOT, WAITING, Ticket

    #: which core is in use: ``'cython'`` or ``'python'``
    core_implementation: str = 'python'
else:
    try:
        from _cpool.async_pool import COLLECT, DISPOSE, HOOKS, AsyncPool
        from _cpool.core import Core
        from _cpool.holders import current_holder, holder_of
        from _cpool.lock import ReentryError, monotonic
        from _cpool.record import DISPOSING, RETURNING, Record
        from _cpool.thread_pool import ThreadPool
        from _cpool.waiters import CLOSED, CONNECTION, SLOT, WAITING, Ticket
    except ImportError as exc:
        raise ImportError(
            f'the compiled core cannot be loaded ({exc}); reinstall the package, or set {VARIABLE}=1 to use the '
            f'pure-Python core',
            name=exc.name,
            path=exc.path,
        ) from exc
    core_implementation = 'cython'
