"""Progress lines on a terminal and off it, by a clock that the test moves."""

import contextlib
import io
import sys

import pytest
from terminal import Terminal, shown

from mmjax.process import progress
from mmjax.process.progress import Line, Progress, Stages


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def screen(monkeypatch):
    """A terminal as standard error, 80 columns wide; standard output is another one."""
    monkeypatch.setenv("COLUMNS", "80")

    def begin(stdout=None):  # in the test itself: pytest puts its own streams there before it
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(sys, "stdout", stdout or Terminal())
        return sys.stderr

    return begin


def counted(task):
    return ["done", f"{task.completed:.0f}/{task.total:.0f}"]


def test_off_a_terminal_by_seconds_or_parts(clock):
    stream = io.StringIO()
    line = Line(counted, 100, stream=stream, seconds=10, parts=20)
    for done in range(1, 16):  # 0.5 s each: 5 are 2.5 s
        clock[0] += 0.5
        line.update(done)
    clock[0] += 9.9
    line.update(16)
    assert stream.getvalue().splitlines() == ["done  5/100", "done  10/100", "done  15/100"]
    clock[0] += 0.2
    line.update(17)
    line.close(17)  # shown already
    assert stream.getvalue().splitlines()[3:] == ["done  17/100"]
    line.close(18)
    assert stream.getvalue().splitlines()[4:] == ["done  18/100"]
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_one_line_at_most_ten_times_a_second(clock, screen):
    stream = screen()
    line = Line(counted, 1000, stays=True)
    for done in range(1, 101):
        clock[0] += 0.01
        line.update(done)
    assert 5 <= stream.getvalue().count("done") <= 12
    clock[0] += 1
    line.update(100)
    print("a warning", file=sys.stderr)
    print("a result")
    assert shown(stream)[:2] == ["a warning", "a result"]
    assert "done  100/1000" in shown(stream)[2]
    line.close(500)
    print("after", file=sys.stderr)
    *above, last, after = shown(stream)
    assert above == ["a warning", "a result"] and "done  500/1000" in last and after == "after"


def test_what_goes_to_a_file_goes_on_doing_so(screen):
    stream = screen(stdout=io.StringIO())
    line = Line(counted, 10)
    print("a result")
    line.stop()
    assert sys.stdout.getvalue() == "a result\n"
    assert shown(stream) == []  # it does not stay


def test_a_line_within_a_line(clock, screen):
    stream = screen()
    outer = Line(counted, 10, stays=True)
    stages = Stages()
    for what in ("images", "texts"):
        for done in (1, 2):
            clock[0] += 1
            stages(what, done, 2)
            if done == 1:
                first, second = shown(stream)
                assert "done  0/10" in first and f"{what}:  50 % of 2" in second
    outer.close(1)
    (line,) = shown(stream)
    assert "done  1/10" in line


def test_a_line_that_is_too_long_is_cut(screen):
    stream = screen()
    Line(lambda task: ["x" * 200], 10, stays=True).close(1)
    (line,) = shown(stream)
    assert len(line) <= 80 and line.endswith("…")


@pytest.mark.parametrize(("seconds", "said"), [(0.5, []), (90.0, ["Work: 10 in 900.0 s"])])
def test_progress_in_a_log(clock, monkeypatch, seconds, said):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Progress("Work", 10) as bar:
        for _ in range(10):
            clock[0] += seconds if said else seconds / 10
            bar.advance()
    lines = stream.getvalue().splitlines()
    assert lines[-1:] == said
    assert len(lines) == 11 * bool(said)
    if said:
        assert lines[4] == "Work:  50 % of 10  ETA 7:30"


def test_progress_that_fails_leaves_nothing_on_the_screen(clock, screen):
    stream = screen()
    with contextlib.suppress(KeyError), Progress("Work", 10) as bar:
        clock[0] += 1
        bar.advance()
        assert "Work:  10 % of 10  ETA 0:09" in shown(stream)[0]
        raise KeyError
    assert shown(stream) == []
    with Progress("Work", 10):
        clock[0] += 2
    assert shown(stream) == ["Work: 0 in 2.0 s"]


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "1:00"), (3725, "1:02:05"), (0, "0:00")])
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
