"""The one parser of the environment variable that chooses between the compiled core and its pure-Python twin.

``setup.py`` runs this file by its path, before there is a package: it must not import the package or anything that
is not in the standard library.
"""

import os
from typing import Mapping, Optional

__all__ = ('COMPILED_MODULES', 'VARIABLE', 'pure_setting')

#: the name of the variable
VARIABLE = 'GENERIC_CONNECTION_POOL_PURE'

#: the modules of the package ``_cpool``
COMPILED_MODULES = (
    'async_pool',
    'closing',
    'core',
    'heap',
    'holders',
    'invariants',
    'lock',
    'policy',
    'record',
    'store',
    'thread_pool',
    'waiters',
)


def pure_setting(environ: Mapping[str, str] = os.environ) -> Optional[bool]:
    """Return what the variable says.

    :param environ: where to look for the variable; the environment of the process by default
    :return: ``True`` for the pure-Python core, ``False`` for the compiled one, ``None`` if the variable is not set
    :raises ValueError: if it is set to anything but ``0`` and ``1``, which includes nothing at all
    """
    value = environ.get(VARIABLE)
    if value is None:
        return None
    if value not in ('0', '1'):
        raise ValueError(f'{VARIABLE} must be 0 (compiled), 1 (pure Python) or not set at all, not {value!r}')
    return value == '1'
