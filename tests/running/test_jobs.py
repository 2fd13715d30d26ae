"""The driver of all tests: what runs at the same time, what a failure stops, what is printed, and what is counted."""

import sys
import threading
from pathlib import Path
from typing import Any, Callable, List

import pytest
from running import jobs
from running.jobs import Counts, Job, Output, StepFailed, report, run_jobs
from running.steps import count

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, 'WORK', tmp_path)
    return tmp_path


def passing(log: List[str], name: str) -> Callable[[Output], Counts]:
    def work(output: Output) -> Counts:
        log.append(name)
        return Counts(passed=1)

    return work


def failing(output: Output) -> Counts:
    return Counts(failed=1)


def raising(output: Output) -> Counts:
    raise StepFailed('it does not work')


def test_as_many_jobs_as_allowed_run_side_by_side() -> None:
    together = threading.Barrier(2)

    def meet(output: Output) -> Counts:
        together.wait(PATIENCE)
        return Counts(passed=1)

    rows = run_jobs([Job('3.x', f'meeting {i}', meet) for i in range(4)], 2)
    assert [row.counts.passed for row in rows] == [1, 1, 1, 1]


def test_no_more_jobs_than_allowed_run_side_by_side() -> None:
    running: List[int] = []
    most = 0

    def work(output: Output) -> Counts:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        running.pop()
        return Counts(passed=1)

    run_jobs([Job('3.x', f'step {i}', work) for i in range(20)], 1)
    assert most == 1


def test_a_job_that_has_to_be_alone_comes_last_and_has_no_company() -> None:
    log: List[str] = []
    running: List[str] = []

    def named(name: str) -> Callable[[Output], Counts]:
        def work(output: Output) -> Counts:
            running.append(name)
            log.append('+'.join(sorted(running)) if name.startswith('alone') else name)
            together.wait(PATIENCE) if name.startswith('pair') else None
            running.remove(name)
            return Counts(passed=1)

        return work

    together = threading.Barrier(2)
    todo = [Job('3.x', name, named(name), alone=name.startswith('alone')) for name in ('alone 1', 'alone 2')]
    run_jobs([*todo, Job('3.x', 'pair 1', named('pair 1')), Job('3.x', 'pair 2', named('pair 2'))], 2)
    assert sorted(log[:2]) == ['pair 1', 'pair 2']
    assert log[2:] == ['alone 1', 'alone 2']


def test_a_job_begins_when_the_one_it_depends_on_has_ended() -> None:
    log: List[str] = []
    go_on = threading.Event()

    def first_work(output: Output) -> Counts:
        assert go_on.wait(PATIENCE)
        log.append('first')
        return Counts()

    def other_work(output: Output) -> Counts:
        log.append('other')
        go_on.set()
        return Counts()

    first = Job('3.x', 'first', first_work)
    rows = run_jobs([first, Job('3.x', 'second', passing(log, 'second'), first), Job('3.y', 'other', other_work)], 2)
    assert log == ['other', 'first', 'second']
    assert [row.step for row in rows] == ['first', 'second', 'other']


@pytest.mark.parametrize('work', [failing, raising])
def test_after_a_failure_nothing_new_begins_and_what_is_under_way_is_finished(work: Any) -> None:
    log: List[str] = []
    a_moment = threading.Event()
    bad = Job('3.x', 'fails', work)

    def finish(output: Output) -> Counts:
        for _ in range(20000):
            if bad.row is not None:  # the failure is known
                break
            a_moment.wait(0.001)
        log.append('finished')
        return Counts(passed=1)

    rows = run_jobs([Job('3.x', 'under way', finish), bad, Job('3.x', 'new', passing(log, 'begun'))], 2)
    assert [(row.step, row.counts.failed) for row in rows] == [('under way', 0), ('fails', 1)]
    assert log == ['finished']


def test_an_error_of_the_driver_itself_is_not_taken_for_a_failure() -> None:
    def broken(output: Output) -> Counts:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_jobs([Job('3.x', 'broken', broken)], 1)


def test_the_output_of_a_job_is_printed_whole_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    together = threading.Barrier(2)

    def work(name: str) -> Callable[[Output], Counts]:
        def speak(output: Output) -> Counts:
            for i in range(3):
                together.wait(PATIENCE)
                assert output.run(sys.executable, '-c', f'print("{name}", {i})') == 0
            return Counts(passed=1)

        return speak

    run_jobs([Job('3.x', name, work(name)) for name in 'ab'], 2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:2] in ('a ', 'b ')]
    assert [line[2:] for line in lines] == ['0', '1', '2', '0', '1', '2']
    assert lines[0][0] == lines[2][0] != lines[3][0]


def test_a_command_that_must_not_fail_fails_its_job() -> None:
    def work(output: Output) -> Counts:
        output.must_run(sys.executable, '-c', 'raise SystemExit(3)')
        return Counts(passed=1)

    (row,) = run_jobs([Job('3.x', 'step', work)], 1)
    assert row.counts == Counts(failed=1)


def test_no_variable_that_redirects_imports_reaches_a_command(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PYTHONPATH', 'somewhere')
    monkeypatch.setenv('GENERIC_CONNECTION_POOL_PURE', '7')
    output = Output('step')
    names = 'PYTHONPATH', 'GENERIC_CONNECTION_POOL_PURE', 'GIVEN'
    assert output.run(sys.executable, '-c', f'import os; print(*map(os.environ.get, {names}))', GIVEN='given') == 0
    assert output.path.read_text().splitlines()[1:] == ['None None given']


def test_the_last_line_sums_up_and_a_failure_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_jobs(
        [Job('3.x', 'good', lambda output: Counts(5, 0, 2)), Job('3.y', 'bad', lambda output: Counts(1, 3))], 1
    )
    assert report(rows) == 1
    *_, told, last = capsys.readouterr().out.splitlines()
    assert told == 'FAILED: Python 3.y, bad'
    assert last == '6 passed, 3 failed, 2 skipped'


def test_the_tests_of_a_run_are_counted_and_a_run_without_a_report_has_failed(tmp_path: Path) -> None:
    path = tmp_path / 'report.xml'
    assert count(path) == Counts(failed=1)
    path.write_text('<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/></testsuites>')
    assert count(path) == Counts(4, 3, 3)
    path.write_text('<testsuites>')
    assert count(path) == Counts(failed=1)
