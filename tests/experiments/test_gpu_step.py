"""The GPU benchmark at toy size on CPU, as one call, where the peers are not installed."""

import re

import commands


def test_it_prints_a_table_of_ours_and_says_what_is_left_out(tmp_path):
    nowhere = tmp_path / "python"
    script = ("experiments/benchmarks/gpu_step.py", "--toy", "--rounds=2")
    done = commands.run(*script, "--steps=1", f"--peers_python={nowhere}")
    assert done.returncode == 0, done.stderr
    assert f"open_clip_compiled: left out, there is no {nowhere}" in done.stdout
    (row,) = re.findall(r"\| toy \| 8 \| ours \| ([\d.,]+) \| [\d,]+ \| .*\| cpu \|", done.stdout)
    assert float(row.replace(",", "")) > 0
    done = commands.run(*script, "--contenders=open_clip", f"--peers_python={nowhere}")
    assert done.returncode == 1 and "No contender could be started" in done.stderr
