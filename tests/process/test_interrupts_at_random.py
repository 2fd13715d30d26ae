"""Interrupts at random instants lose nothing with the compiled core. HAZARDS 9, 10

What the pure core does not promise is said in docs/guarantees.md; interrupts at every bytecode of the facade, with either
core, are in tests/pool/threading/test_interrupts.py.
"""

import signal
import sys
from typing import Any, List

import pytest
from generic_connection_pool import core_implementation
from process.storm import SOURCES, HookedManager, Interrupt, PlainManager

pytestmark = [
    pytest.mark.skipif(core_implementation == 'python', reason='interrupts inside the pure core are not handled'),
    pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='this platform has no interval timers'),
]

INTERRUPTS = 150


@pytest.mark.parametrize('make_manager', [PlainManager, HookedManager])
@pytest.mark.parametrize('rivals', [0, 2])
@pytest.mark.parametrize('source', SOURCES)
def test_blocks_interrupted_at_random_lose_nothing(
    source: str, rivals: int, make_manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: List[Any] = []
    monkeypatch.setattr(sys, 'unraisablehook', reports.append)
    storm = SOURCES[source](make_manager(), rivals, INTERRUPTS, 20.0)
    assert storm.interrupts >= INTERRUPTS
    # one interrupt may hit a callback of a weak reference, where Python can only report it; none of those is ours
    told = [(report.exc_type, getattr(report.object, '__module__', None)) for report in reports]
    reports.clear()
    assert {exc_type for exc_type, _ in told} <= {KeyboardInterrupt, Interrupt}
    assert not [module for _, module in told if str(module).startswith(('generic_connection_pool', '_cpool'))]
