"""Runs the sides of a comparison in turn: A B A B, so that whatever disturbs the machine disturbs all of them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

Answer = Dict[str, Any]


class SideFailed(Exception):
    """The process of a side has ended; it has said why on standard error."""


class Side:
    """A process that measures what it is asked for."""

    def __init__(self, name: str, python: str, core: str):
        """
        :param name: for messages
        :param python: the interpreter of the environment in which the library is installed
        :param core: the setting of ``GENERIC_CONNECTION_POOL_PURE``
        """
        self.name = name
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name('side.py'))],
            env={**os.environ, 'GENERIC_CONNECTION_POOL_PURE': core},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.about = self._read()

    def __enter__(self) -> 'Side':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, module: str, function: str, *arguments: object) -> Answer:
        """Have a function of a module beside this one called, and return its answer."""
        assert self._process.stdin is not None
        try:
            print(json.dumps([module, function, arguments]), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # reading will tell
        return self._read()

    def _read(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f'{self.name}: the process ended with exit code {self._process.wait()}')
        answer: Answer = json.loads(line)
        return answer


class Task:
    """Something to be measured on one side, again and again."""

    def __init__(self, side: Optional[Side], module: str, function: str, *arguments: object):
        """:param side: ``None`` for one that is missing, which gives no answers"""
        self._side = side
        self._call = module, function, arguments
        self.answers: List[Answer] = []

    def run(self) -> None:
        if self._side is not None:
            module, function, arguments = self._call
            self.answers.append(self._side.ask(module, function, *arguments))

    def best(self, key: str) -> Optional[float]:
        """The least of what was measured: what disturbs only ever adds. ``None`` if nothing was."""
        return min((answer[key] for answer in self.answers), default=None)


def alternate(rounds: int, *tasks: Task) -> None:
    """Run tasks in turn."""
    for _ in range(rounds):
        for task in tasks:
            task.run()
