"""The model of parking and hand-over, docs/model: spin goes through all of its states."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import List, NamedTuple, Tuple

import pytest

MODEL = Path(__file__).resolve().parents[2] / 'docs' / 'model' / 'handoff.pml'
COMPILER = next((name for name in ('cc', 'gcc', 'clang') if shutil.which(name)), None)
pytestmark = [
    pytest.mark.skipif(shutil.which('spin') is None, reason='spin is not installed'),
    pytest.mark.skipif(COMPILER is None, reason='there is no C compiler'),
]


class Configuration(NamedTuple):
    """What is switched on and off in the model, and how many states it has then.

    :param macros: what they mean, ``docs/model.md`` says
    :param states: those that are stored
    :param live: whether the formula of the model is checked too, under weak fairness
    """

    macros: Tuple[str, ...]
    states: int
    live: bool = False


CALM = ('WAKES_AT_ONCE', 'NOTHING_DIES', 'STRANGER_DISCARDS_NOTHING')
HAMMERED = ('WAKES_AT_ONCE', 'NOTHING_DIES', 'NEVER_CLOSED', 'ROUNDS=0', 'PATIENT=7')
CONFIGURATIONS = {
    'everything at once': Configuration(CALM, 3500874),
    'at most one connection to each endpoint': Configuration((*CALM, 'MAX=1'), 684476),
    'two users at the other endpoint': Configuration((*CALM[:2], 'NEVER_CLOSED', 'HOMES=6'), 223355),
    'wake-ups that arrive later': Configuration((*CALM[1:], 'NEVER_CLOSED'), 1035992),
    'dead connections': Configuration(
        ('WAKES_AT_ONCE', 'STRANGER_DISCARDS_NOTHING', 'NEVER_CLOSED', 'NEVER_CANCELLED', 'PATIENT=3', 'COUNT_PASSES'),
        1324196,
    ),
    'two rounds': Configuration((*CALM, 'NEVER_CLOSED', 'NEVER_CANCELLED', 'PATIENT=3', 'ROUNDS=2'), 2728706),
    'an endpoint that is hammered': Configuration((*HAMMERED, 'COUNT_PASSES'), 925452),
    'everybody is served': Configuration(HAMMERED, 1172753, live=True),
}  # fmt: skip

ASLEEP = 'invalid end state'  # somebody sleeps for ever
BROKEN = 'assertion violated'
#: mistakes, what they lead to, and in which configuration
MISTAKES = {
    'A_WITHDRAWN_TICKET_STAYS_IN_THE_QUEUE': (BROKEN, CALM),
    'WHO_TIMED_OUT_EATS_THE_GRANT': (BROKEN, CALM),
    'A_WAKE_UP_BEFORE_THE_SLEEP_IS_LOST': (ASLEEP, CALM),
    'A_FREE_SLOT_IS_NOT_OFFERED_TO_OTHERS': (BROKEN, CALM),
    'WHO_WITHDRAWS_FORGETS_ITS_VICTIM': (ASLEEP, CALM),
    'THE_VICTIM_IS_LOOKED_AT_BEFORE_THE_STATE': (ASLEEP, CALM),
    'CLOSE_TELLS_NOBODY': (ASLEEP, CALM),
    'NOBODY_COUNTS_WHO_IS_BYPASSED': (BROKEN, (*HAMMERED, 'COUNT_PASSES')),
}


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f'{command}: {done.stdout}'
    return done.stdout


def search(folder: Path, macros: Tuple[str, ...], *, live: bool = False, optimise: str = '-O1') -> str:
    """Return what spin's verifier says of the model."""
    assert COMPILER is not None
    definitions: List[str] = [f'-D{macro}' for macro in macros]
    run(folder, 'spin', '-a', *definitions, *(['-DLIVENESS'] if live else []), str(MODEL))
    mode = '-DNFAIR=3' if live else '-DSAFETY'
    run(folder, COMPILER, optimise, mode, '-DCOLLAPSE', '-DMEMLIM=2000', '-w', '-o', 'pan', 'pan.c')
    return run(folder, './pan', '-m1000000', *(['-a', '-f'] if live else []))


def errors_in(report: str) -> int:
    found = re.search(r'errors: (\d+)', report)
    assert found, report
    return int(found[1])


@pytest.mark.parametrize('name', CONFIGURATIONS)
def test_no_state_of_the_model_breaks_a_promise(tmp_path: Path, name: str) -> None:
    macros, states, live = CONFIGURATIONS[name]
    report = search(tmp_path, macros, live=live)
    assert errors_in(report) == 0, report
    for incomplete in ('Search not completed', 'max search depth too small', 'out of memory', 'aborted'):
        assert incomplete not in report, report
    found = re.search(r'(\d+) states, stored', report)
    assert found and int(found[1]) == states, report


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_protocol_with_a_mistake_is_found_out(tmp_path: Path, mistake: str) -> None:
    finding, macros = MISTAKES[mistake]
    report = search(tmp_path, (f'BUG_{mistake}', *macros), optimise='-O0')
    assert errors_in(report) == 1 and f'pan:1: {finding}' in report, report


def test_each_mistake_that_the_model_knows_is_tried() -> None:
    text = ''.join(file.read_text() for file in MODEL.parent.glob('*.pml'))
    assert set(re.findall(r'BUG_(\w+)', text)) == set(MISTAKES)
