"""Fuzzing with atheris: bytes become operations on both implementations of the core, which must answer alike.

    python tests/fuzz/atheris_core.py -max_total_time=60 [CORPUS] [other options of libFuzzer]

After each operation the answers are checked against a ledger, and the invariants are looked at. With ``FUZZ_MISUSE=1`` the
classes of the compiled core are misused at random as well. atheris instruments Python code for coverage; the extension
modules report theirs if they were built with clang and ``-fsanitize=fuzzer-no-link``, and ``LD_PRELOAD`` names the
``ubsan_with_fuzzer.so`` of atheris. What is found is written to a file ``crash-...``; given that, the script runs it again.
"""

import os
import pathlib
import sys

if 'with_fuzzer' in os.environ.get('LD_PRELOAD', ''):  # libFuzzer is there already, for the extension modules as well
    import atheris_no_libfuzzer as atheris
else:
    import atheris

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT / 'tests'), *sys.path, str(ROOT)]  # a core that was built elsewhere comes first

with atheris.instrument_imports(include=['generic_connection_pool', 'support']):
    from fuzz.misuse import Misuse
    from support.core_actions import NAMES, Actions
    from support.core_twins import CYTHON, PYTHON
    from support.core_world import Limits

#: operations of one history at the most
LONGEST = 200
#: also misuse the classes of the compiled core, which may crash it
MISUSE = os.environ.get('FUZZ_MISUSE') == '1'
TIMES = (0.0, 0.5, 3.0, 20.0)
OTHERS = ('withdraw', 'find', 'alarm', 'idle', 'rare')
ENDS = ('idle', 'lent', 'join', 'leave')


def limits(data: atheris.FuzzedDataProvider) -> Limits:
    return Limits(
        data.ConsumeIntInRange(0, 2),
        data.ConsumeIntInRange(1, 3),
        data.ConsumeIntInRange(1, 4),
        data.PickValueInList([0.0, 1.0, 5.0, 100.0]),
        data.PickValueInList([0.0, 2.0, 10.0, 1000.0]),
    )


def run_history(data: atheris.FuzzedDataProvider) -> None:
    """Do what the bytes say with both cores, and compare."""
    actions = Actions((PYTHON, CYTHON), limits(data), data.ConsumeBool())
    for _ in range(LONGEST):
        if not data.remaining_bytes():
            break
        what, choice = data.ConsumeIntInRange(0, 7), data.ConsumeIntInRange(0, 15)
        if what == 0:
            actions.arrive(NAMES[choice % len(NAMES)], choice > 7, data.ConsumeIntInRange(0, 5))
        elif what == 1:
            actions.go_on(choice, data.ConsumeIntInRange(0, 5))
        elif what == 2:
            actions.release(choice, data.ConsumeIntInRange(0, 5))
        elif what == 3:
            actions.dispose(choice)
        elif what == 4:
            actions.wait(TIMES[choice % len(TIMES)], choice > 7)
        elif what == 5:
            actions.interfere(choice, OTHERS[data.ConsumeIntInRange(0, len(OTHERS) - 1)], NAMES[choice % len(NAMES)])
        elif what == 6:
            actions.empty(choice, ENDS[choice % len(ENDS)], data.ConsumeIntInRange(0, 2))
        else:
            actions.hammer(NAMES[choice % len(NAMES)])
    actions.end()


def run_misuse(data: atheris.FuzzedDataProvider) -> None:
    """Use the classes of the compiled core as they must not be used. Errors are as good as answers; crashes are not."""
    misuse = Misuse(CYTHON, lambda count: data.ConsumeIntInRange(0, count - 1))
    for _ in range(LONGEST):
        if not data.remaining_bytes():
            break
        misuse.step()
    misuse.end()


def run_one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    misuses = MISUSE and provider.ConsumeIntInRange(0, 3) == 0
    (run_misuse if misuses else run_history)(provider)


def main() -> None:
    atheris.Setup(sys.argv, run_one)
    atheris.Fuzz()


if __name__ == '__main__':
    main()
