"""The account of wall time: on records with a known answer, and by a clock of the test."""

import json

import pytest

from mmjax.run import goodput


def start(began, time, step, **lost):
    return {"began": began, "time": time, "step": step, "lost": lost}


def interval(time, step, end=False, **lost):
    return {"time": time, "step": step, "lost": lost} | ({"end": True} if end else {})


def account(*rows):
    found = goodput.account(rows)
    return {cause: seconds for cause, seconds in found.items() if seconds}


def test_an_undisturbed_run():
    found = account(
        start(100, 130, 0, evaluation=10),  # 20 s of start-up
        interval(160, 10, compile=15, data=5),  # 10 s for 10 steps
        interval(170, 20),
        interval(173, 20, checkpoint=3),
        interval(180, 20, end=True, evaluation=6),  # and 1 s of what else there is
    )
    assert found == {
        "useful": 20,
        "startup": 20,
        "compile": 15,
        "checkpoint": 3,
        "data": 5,
        "evaluation": 16,
        "other": 1,
    }
    assert goodput.fraction(found) == 20 / 80
    assert goodput.sentence(found) == (
        "25% of 1:20 in useful steps; start-up 25%, evaluation 20%, compilation 19%, waiting for "
        "data 6%, saving 4%, other 1%"
    )


def test_steps_after_the_checkpoint_are_trained_again():
    """A kill after step 40, and a start from step 25, amid an interval of 20 s."""
    found = account(
        start(0, 10, 0),
        interval(20, 10),
        interval(40, 30),  # steps 11 to 30
        interval(55, 40, data=5),
        start(85, 95, 25),  # 30 s later
        interval(110, 40),
    )
    assert found == {
        "useful": 10 + 15 + 15,
        "redone": 5 + 10,
        "startup": 10 + 10,
        "data": 5,
        "down": 30,
    }
    assert sum(found.values()) == 110


def test_two_kills_count_the_same_steps_twice():
    found = account(
        start(0, 0, 0),
        interval(10, 10),
        start(10, 10, 0),
        interval(20, 10),
        start(20, 20, 5),
        interval(25, 10),
    )
    assert found == {"useful": 5 + 5, "redone": 10 + 5}


def test_a_complete_run_that_is_continued_was_not_down():
    found = account(
        start(0, 1, 0), interval(11, 10, end=True), start(500, 501, 10), interval(511, 20)
    )
    assert found == {"useful": 20, "startup": 2}


def test_a_start_before_the_last_record_by_another_hosts_clock():
    found = account(start(0, 0, 0), interval(10, 10), start(7, 12, 10), interval(13, 11))
    assert found == {"useful": 11, "startup": 2}


@pytest.fixture
def clock(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(goodput.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(goodput.time, "time", lambda: 1000 + now[0])
    return now


def test_the_ledger_writes_what_the_account_reads(clock, tmp_path):
    ledger = goodput.Ledger(tmp_path / "run", began=1040.0)
    with ledger.lost("evaluation"):
        clock[0] += 4
    clock[0] += 1
    ledger.enter(0, total=10)
    clock[0] += 7
    ledger.compiled(wait_seconds=2.0)
    clock[0] += 10
    ledger.record(5, wait_seconds=5.0)
    assert goodput.fraction(ledger.seconds) == pytest.approx(7 / 32)
    path = tmp_path / "run" / goodput.FILE
    with open(path, "a") as file:
        file.write('{"time": 1')  # by a kill

    clock[0] += 100
    again = goodput.Ledger(tmp_path / "run", began=1000 + clock[0])
    again.enter(4, total=10)
    clock[0] += 6
    again.record(10, wait_seconds=0.0)
    again.end(10)
    want = {"useful": 7 * 4 / 5 + 6, "redone": 7 / 5, "startup": 11, "compile": 5, "data": 5}
    want |= {"evaluation": 4, "down": 100, "checkpoint": 0, "other": 0}
    assert again.seconds == pytest.approx(want) == goodput.read(tmp_path / "run")
    assert sum(want.values()) == 32 + 100 + 6

    lines = path.read_text()
    idle = goodput.Ledger(tmp_path / "run", began=1000 + clock[0])
    idle.enter(10, total=10)  # nothing is left to do
    idle.end(10)
    assert path.read_text() == lines and not idle.active
    assert [row["step"] for row in map(json.loads, lines.splitlines())] == [0, 5, 4, 10, 10]


def test_other_processes_write_nothing(clock, tmp_path):
    ledger = goodput.Ledger(tmp_path / "run", began=0.0, active=False)
    ledger.enter(0, total=10)
    ledger.record(5, 0.0)
    assert not (tmp_path / "run").exists() and goodput.read(tmp_path) == {}


@pytest.mark.parametrize(
    "row", [{}, [], 3, {"time": 1.0, "step": 1}, interval(2.0, 1, lunch=3.0), interval("2", 1)]
)
def test_a_line_that_is_no_record_is_one_sentence(row, tmp_path):
    lines = [start(0.0, 1.0, 0), row]
    (tmp_path / goodput.FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    with pytest.raises(ValueError, match=r"goodput.jsonl, line 2, .*delete"):
        goodput.read(tmp_path)
    (tmp_path / goodput.FILE).write_text(json.dumps(interval(2.0, 1)) + "\n")
    with pytest.raises(ValueError, match="does not begin with the start of a run: delete the file"):
        goodput.Ledger(tmp_path, 0.0).enter(0, 5)
