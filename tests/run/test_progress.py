"""The progress line, by a clock that the test moves."""

import io

import jax.numpy as jnp
import pytest
from terminal import Terminal, shown

from mmjax.run import progress as lines


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock[0] is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: now[0])
    return now


def test_progress_line_shows_rates_without_the_first_step(clock):
    """Step 1 takes a minute (compilation); then 2 s a step, a quarter of it spent waiting."""
    stream = io.StringIO()
    progress = lines.ProgressLine(100, 32, stream=stream)
    clock[0] += 60
    progress.update(1, {"train/loss": jnp.float32(2.5), "logit_scale": 14.25}, 50.0)
    for step in range(2, 7):
        clock[0] += 2
        progress.update(step, {"loss": 1.0 / step}, 0.5)
    text = progress.text()
    for words in ("6.0 %", "step 6/100", "logit_scale 14.25", "16 examples/s", "waiting 25 %"):
        assert words in text
    assert text.endswith("ETA 3:08")  # 94 steps of 2 s
    first = stream.getvalue().splitlines()[0]
    assert "loss 2.5" in first and "examples/s" not in first


def test_progress_line_off_a_terminal_every_ten_seconds_or_five_percent(clock):
    stream = io.StringIO()
    progress = lines.ProgressLine(1000, 1, stream=stream)
    for step in range(1, 201):  # 0.1 s a step: 5 % is 50 steps, 5 s
        clock[0] += 0.1
        progress.update(step, {}, 0.0)
    steps = [line.split()[3] for line in stream.getvalue().splitlines()]
    assert steps == ["50/1000", "100/1000", "150/1000", "200/1000"]
    for step in range(201, 206):  # 6 s a step: every second one
        clock[0] += 6
        progress.update(step, {}, 0.0)
    progress.close()
    steps = [line.split()[3] for line in stream.getvalue().splitlines()][4:]
    assert steps == ["202/1000", "204/1000", "205/1000"]


def test_on_a_terminal_the_last_line_stays(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    progress = lines.ProgressLine(4, 8, start_step=2, stream=stream)
    for step in (3, 4):
        clock[0] += 1
        progress.update(step, {"loss": 1.0}, 0.0)
    progress.close()
    (line,) = shown(stream)
    assert line.startswith("100.0 %  step 4/4  loss 1  8 examples/s  waiting 0 %  ETA 0:00")


def test_restart_leaves_an_evaluation_out_of_the_rate(clock):
    progress = lines.ProgressLine(100, 10, stream=io.StringIO())
    for step in range(1, 4):
        clock[0] += 1
        progress.update(step, {}, 0.0)
    clock[0] += 15
    progress.restart()
    for step in range(4, 7):
        clock[0] += 1
        progress.update(step, {}, 0.0)
    assert "10 examples/s" in progress.text()


class Unfinished:
    """A device scalar that is in the making until `ready`: reading it before would wait."""

    ready = False

    def is_ready(self):
        return self.ready

    def __float__(self):
        assert self.ready, "waited for the device"
        return 0.5


def test_rates_are_of_steps_finished_and_not_of_steps_started(clock, monkeypatch):
    """The loop starts ten steps at once and waits for them: 3 s a step, a sixth of it for data."""
    monkeypatch.setattr(lines.jax, "Array", Unfinished)
    progress = lines.ProgressLine(1000, 16, stream=io.StringIO())
    for burst in range(3):
        started = [Unfinished() for _ in range(10)]
        for i, scalar in enumerate(started):
            clock[0] += 0.01
            progress.update(10 * burst + i + 1, {"loss": scalar}, 0.5)
        if burst > 1:
            assert "step 20/1000  loss 0.5  5 examples/s  waiting 17 %" in progress.text()
        clock[0] += 29.9
        for scalar in started:
            scalar.ready = True
        assert progress.examples_per_second == pytest.approx(16 / 3 if burst else 0)
        if burst:
            assert progress.data_wait_share == pytest.approx(1 / 6)
    assert progress.text().endswith(f"ETA {970 * 3 // 60}:30")


def test_progress_line_never_waits_for_the_device(clock, monkeypatch):
    monkeypatch.setattr(lines.jax, "Array", Unfinished)
    progress = lines.ProgressLine(10, 1, stream=Terminal())
    clock[0] += 1
    progress.update(1, {"loss": Unfinished()}, 0.0)
    assert "step 0/10" in progress.text() and "loss" not in progress.text()
