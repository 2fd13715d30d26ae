"""Telling a process that waits for ever from one that is slow, or that does not get the processor."""

import os
import time
from pathlib import Path
from typing import Tuple

__all__ = ('Watch',)


class Watch:
    """Looks at a process now and then (Linux only).

    :param pid: the process
    :param patience: seconds without using the processor, or asking for it, after which it is stuck
    """

    def __init__(self, pid: int, patience: float):
        self.pid = pid
        self.patience = patience
        self._used = -1.0
        self._moved = time.monotonic()

    def stuck(self) -> bool:
        """Whether it waits for ever. To be asked often."""
        try:
            used, runs = self._processor_time()
        except (OSError, ValueError):  # it is just ending
            return False
        if runs or used > self._used:
            self._used, self._moved = used, time.monotonic()
        return time.monotonic() - self._moved > self.patience

    def _processor_time(self) -> Tuple[float, bool]:
        """Seconds of processor time that it has used, and whether one of its threads would like to run."""
        fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        tasks = Path(f'/proc/{self.pid}/task').iterdir()
        states = [task.joinpath('stat').read_text().rpartition(')')[2].split()[0] for task in tasks]
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK'), 'R' in states or 'D' in states
