"""What a run consists of: jobs, of which several run side by side, each with its output in a file of its own."""

import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Callable, Collection, Dict, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / '.venv'
WORK = ENVIRONMENTS / 'run'  # where everything runs: away from the checkout, so that nothing is imported from it


class StepFailed(Exception):
    """A step failed; it has said why."""


class Counts(NamedTuple):
    """What came of a step."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


class Row(NamedTuple):
    """A line of the closing table."""

    interpreter: str
    step: str
    counts: Counts
    seconds: float


def clean_environ(**variables: str) -> Dict[str, str]:
    """Return the environment without what would redirect Python's imports or choose a core."""
    dropped = ('PYTHON', 'GENERIC_CONNECTION_POOL', '__PYVENV')
    return {**{name: value for name, value in os.environ.items() if not name.startswith(dropped)}, **variables}


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def say(text: str) -> None:
    print(text, flush=True)


class Output:
    """Where the commands of one job write to: a file, so that the jobs side by side do not get mixed up.

    :param name: of the job; the file's name is made of it
    """

    def __init__(self, name: str):
        WORK.mkdir(parents=True, exist_ok=True)
        self.path = WORK / f'{"".join(char if char.isalnum() or char in ".-" else "-" for char in name)}.log'
        self.path.write_bytes(b'')

    def say(self, text: str) -> None:
        with self.path.open('a', encoding='utf-8') as stream:
            stream.write(f'{text}\n')

    def run(self, *command: 'str | Path', **variables: str) -> int:
        """Run a command with these variables in its environment, and return its exit status."""
        self.say(f'$ {" ".join(map(str, command))}')
        with self.path.open('ab') as stream:
            return subprocess.run(
                command, cwd=WORK, env=clean_environ(**variables),
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            ).returncode  # fmt: skip

    def must_run(self, *command: 'str | Path', **variables: str) -> None:
        """Run a command.

        :raises StepFailed: it failed
        """
        if self.run(*command, **variables) != 0:
            raise StepFailed(f'{Path(command[0]).name} failed')

    def show(self) -> None:
        """Print what has been written so far, in the characters that the terminal knows."""
        encoding = sys.stdout.encoding or 'ascii'
        text = self.path.read_bytes().decode('utf-8', 'replace').rstrip('\n')
        say(text.encode(encoding, 'backslashreplace').decode(encoding))


class Job:
    """A step of the run.

    :param interpreter: the label of the interpreter that it is for
    :param step: its name
    :param work: does it; gets the output to write to
    :param after: the job that has to have ended before
    :param alone: whether nothing else may run meanwhile, because it measures time
    """

    def __init__(
        self,
        interpreter: str,
        step: str,
        work: Callable[[Output], Counts],
        after: 'Optional[Job]' = None,
        alone: bool = False,
    ):
        self.interpreter = interpreter
        self.step = step
        self.work = work
        self.after = after
        self.alone = alone
        self.output = Output(f'{interpreter}-{step}')
        self.row: Optional[Row] = None

    def perform(self) -> Row:
        began = time.monotonic()
        try:
            counts = self.work(self.output)
        except StepFailed as exc:
            self.output.say(str(exc))
            counts = Counts(failed=1)
        return Row(self.interpreter, self.step, counts, time.monotonic() - began)


def next_job(waiting: Sequence[Job], running: Collection[Job], at_once: int) -> Optional[Job]:
    """Return the job that can be begun now. Those that have to be alone wait until nothing else is left to begin."""
    if len(running) >= at_once or any(job.alone for job in running):
        return None
    ready = [job for job in waiting if job.after is None or job.after.row is not None]
    for job in ready:
        if not job.alone:
            return job
    return ready[0] if ready and not running else None


def run_jobs(jobs: Sequence[Job], at_once: int) -> List[Row]:
    """Run jobs in their order, as many at a time as given. After a failure, only those under way are finished.

    :return: the lines of those that have run, in their order
    """
    waiting = list(jobs)
    running: 'Dict[Future[Row], Job]' = {}
    with ThreadPoolExecutor(at_once) as executor:
        while True:
            job = next_job(waiting, running.values(), at_once)
            while job is not None:
                waiting.remove(job)
                say(f'... {job.interpreter}, {job.step}')
                running[executor.submit(job.perform)] = job
                job = next_job(waiting, running.values(), at_once)
            if not running:
                return [job.row for job in jobs if job.row is not None]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                job.row = future.result()
                say(f'\n=== {job.interpreter}, {job.step}: {job.row.seconds:.0f} s')
                job.output.show()
                if job.row.counts.failed:
                    waiting.clear()


def report(rows: Sequence[Row]) -> int:
    """Print the table, what has failed, and as the last line the sums. Returns the exit status."""
    width = max([26, *(len(row.step) + 2 for row in rows)])
    say(f'\n{"Python":8}{"step":{width}}{"passed":>8}{"failed":>8}{"skipped":>8}{"seconds":>9}')
    for row in rows:
        passed, failed, skipped = row.counts
        say(f'{row.interpreter:8}{row.step:{width}}{passed:8}{failed:8}{skipped:8}{row.seconds:9.0f}')
    for row in rows:
        if row.counts.failed:
            say(f'FAILED: Python {row.interpreter}, {row.step}')
    passed, failed, skipped = (sum(row.counts[index] for row in rows) for index in range(3))
    say(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed else 0
