"""A short run of ``tests/stress/flat``: what a pool takes does not grow with what it has done."""

import subprocess
import sys
from pathlib import Path
from typing import Tuple

import pytest

FLAT = Path(__file__).with_name('flat')


def run_flat(*arguments: str) -> Tuple[int, str]:
    """Run it in a process of its own, in which nothing counts but what the pools do."""
    result = subprocess.run(
        [sys.executable, FLAT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return result.returncode, result.stdout


@pytest.mark.parametrize('runtime', ['threads', 'asyncio'])
def test_memory_references_and_descriptors_do_not_grow_with_use(runtime: str) -> None:
    status, table = run_flat('--count', '5000', '--only', runtime)
    assert status == 0, table


def test_a_leak_would_be_noticed() -> None:
    status, table = run_flat('--count', '20000', '--self-test')
    assert status == 0, table
