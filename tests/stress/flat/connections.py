"""What the pools of the stages are made of: connections with file descriptors, and trouble in the hooks."""

import os
from typing import Any

#: in a row, what a hook that is troubled does
HOOKS = ('create', 'check_aliveness', 'on_acquire', 'on_release', 'is_reusable', 'dispose')


class Connection:
    """Something with a file descriptor."""

    def __init__(self) -> None:
        self.descriptor = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.descriptor)


class Trouble(Exception):
    """What hooks and blocks raise."""


class Troubles:
    """Who decides which hook fails when: each now and then, in every combination."""

    def __init__(self) -> None:
        self._calls = 0

    def meet(self, hook: str) -> None:
        """Count a call of a hook.

        :raises Trouble: now and then
        """
        if self.has(hook):
            raise Trouble(hook)

    def has(self, hook: str) -> Any:
        """Count a call of a hook, and return whether it is one of those that go wrong."""
        self._calls += 1
        return self._calls % 11 == HOOKS.index(hook)
