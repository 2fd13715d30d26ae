"""What an error tells whoever looks closely."""

import traceback
from typing import Any, List

__all__ = ('all_that_is_told',)


def all_that_is_told(exc: BaseException) -> str:
    """The messages and arguments of an error and of all that it is connected to."""
    told = ''
    seen: List[Any] = [None]
    pending: List[Any] = [exc]
    while pending:
        error = pending.pop()
        if not any(error is known for known in seen):
            seen.append(error)
            told += ''.join(traceback.format_exception_only(error)) + repr(error.args)
            pending += [error.__cause__, error.__context__]
    return told
