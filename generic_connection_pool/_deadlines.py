"""From the seconds that a caller gives to a point in time, and back."""

from typing import Optional

from ._core import monotonic

__all__ = ('deadline_after', 'remaining')


def deadline_after(timeout: Optional[float]) -> Optional[float]:
    """Return when so many seconds from now will have passed, ``None`` (never) for ``None``."""
    return None if timeout is None else monotonic() + timeout


def remaining(deadline: Optional[float]) -> Optional[float]:
    """Return the seconds until a deadline, 0 if it has passed; ``None`` for one that never does."""
    return None if deadline is None else max(deadline - monotonic(), 0.0)
