"""The ablation runner: real processes, a kill in the middle, and the numbers of its table."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import ablate
from experiments.ablation_queue import work
from experiments.ablation_table import compared, difference, holm, markdown, mean_and_interval
from mmjax import config as configs

ROOT = Path(__file__).parents[2]
# Stands for mmjax.train: it takes the same arguments and leaves the same run.json, in no time. A
# run that is to wait does so until a file "go" lies beside the runs.
TRAINER = """
import json, sys, time
from pathlib import Path
from mmjax import config as configs
flags = [a for a in sys.argv[1:] if not a.startswith("--config.")]
flags = dict(a[2:].split("=", 1) for a in flags)
config = configs.load(flags["config"], [a for a in sys.argv if a.startswith("--config.")])
workdir = Path(flags["workdir"])
manifest = {"config": json.loads(configs.to_json(config))}
(workdir / "run.json").write_text(json.dumps(manifest))
with open(workdir.parent / "order.txt", "a") as file:
    file.write(workdir.name + "\\n")
while config.model.width == 2 and config.seed == 1 and not (workdir.parent / "go").exists():
    time.sleep(0.05)
if config.model.width == 3 and not (workdir.parent / "go").exists():
    sys.exit("it broke")
score = 0.1 * config.model.width + 0.01 * config.seed * (1 if config.model.width == 1 else 3)
results = {"values": {"test/top1": score, "test/other": 0.0}}
(workdir / "run.json").write_text(json.dumps({**manifest, "results": results}))
"""
CONFIG = """
from mmjax.config import defaults

def get_config():
    config = defaults()
    config.model = {"name": "vit", "variant": "Ti/16", "width": 1, "num_classes": 5}
    return config
"""
GRID = """
import sys

def get_grid():
    return {{
        "config": {config!r},
        "axes": {{"model.width": {widths}}},
        "baseline": {{"model.width": 1}},
        "seeds": {seeds},
        "metrics": {metrics},
        "command": (sys.executable, {trainer!r}),
    }}
"""
METRICS = {"test/top1": "accuracy"}


@pytest.fixture
def grid(tmp_path):
    """A function that writes a grid's file and gives its path."""

    def write(widths=(1, 2), seeds=(0, 1, 2), metrics=METRICS):
        paths = {name: str(tmp_path / name) for name in ("config.py", "trainer.py", "grid.py")}
        fields = {"config": paths["config.py"], "trainer": paths["trainer.py"]}
        fields |= {"widths": list(widths), "seeds": list(seeds), "metrics": metrics}
        Path(paths["config.py"]).write_text(CONFIG)
        Path(paths["trainer.py"]).write_text(TRAINER)
        Path(paths["grid.py"]).write_text(GRID.format(**fields))
        return paths["grid.py"]

    return write


def start(grid, out, *flags):
    command = [sys.executable, "-m", "experiments.ablate", f"--grid={grid}", f"--out={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, *flags],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within two minutes"
        time.sleep(0.05)


def test_arms_stand_for_themselves(grid, tmp_path):
    path = Path(grid())
    text = path.read_text()
    arms = '"arms": {"as it is": {}, "wide": {"model.width": 8, "batch_size": 16}}'
    path.write_text(text.replace('"axes": {"model.width": [1, 2]}', arms))
    with pytest.raises(ValueError, match="baseline .* is none of its arms: as it is, wide"):
        ablate.load_grid(str(path))
    path.write_text(path.read_text().replace('{"model.width": 1}', '"as it is"'))
    found = ablate.load_grid(str(path))
    assert ablate.baseline_of(found) == ablate.Cell("as it is")
    runs = ablate.make_runs(found, tmp_path)
    assert [run.cell.title for run in runs] == ["as it is", "wide"] * 3
    assert (runs[1].config.model.width, runs[1].config.batch_size) == (8, 16)
    assert [run.workdir.name for run in runs][:3] == [
        *("arm=as_it_is,seed=0", "arm=wide,seed=0", "arm=as_it_is,seed=1"),
    ]


def test_killed_in_the_middle_it_goes_on_and_the_table_is_right(grid, tmp_path):
    out = tmp_path / "runs"
    order = out / "order.txt"
    first = start(grid(), out)
    wait_for(lambda: order.exists() and "width=2,seed=1" in order.read_text())
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 143
    begun = order.read_text().split()
    # Seeds outermost; two cells of seed 0, two of seed 1 begun, and nothing of seed 2.
    assert begun == ["unchanged", "width=2", "seed=1", "width=2,seed=1"]
    (out / "go").touch()
    second = start(grid(), out, f"--report={tmp_path / 'report'}")
    printed, progress = second.communicate(timeout=120)
    assert second.returncode == 0, progress
    again = order.read_text().split()[len(begun) :]
    assert again[0] == begun[-1] and len(again) == 3  # the one that was cut off, and seed 2
    assert "6 runs, 3 of them done" in progress and "ETA 0:00" in progress
    # width 1: 10, 11, 12 %; width 2: 20, 23, 26 %; their differences 10, 12, 14.
    t = stats.t.ppf(0.975, 2)
    table = (tmp_path / "report" / "table.md").read_text()
    assert printed.strip() in table
    assert f"| width 1 (baseline) | 3 | 11.0 ± {t / math.sqrt(3):.1f} |  |  |  |" in table
    half, delta = (3 * t / math.sqrt(3), 2 * t / math.sqrt(3))
    p = stats.ttest_rel([0.20, 0.23, 0.26], [0.10, 0.11, 0.12]).pvalue
    row = f"| width 2 | 3 | 23.0 ± {half:.1f} | +12.0 ± {delta:.1f} | {p:.2g} | +6.0 |"
    assert row in table
    commands = (tmp_path / "report" / "commands.txt").read_text().splitlines()
    assert len(commands) == 6 and "--config.model.width=2 --config.seed=2" in commands[-1]
    assert (tmp_path / "report" / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_that_fails_stops_no_other_and_comes_again(grid, tmp_path):
    out = tmp_path / "runs"
    path = grid(widths=(1, 3), seeds=(0,))
    process = start(path, out, "--jobs=2")
    printed, progress = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "width=3  FAILED, see" in progress and "| width 3 | 0 | – | – | – | – |" in printed
    assert "it broke" in (out / "width=3" / "log.txt").read_text()
    (out / "go").touch()
    process = start(path, out)
    printed, progress = process.communicate(timeout=120)
    assert process.returncode == 0 and "2 runs, 1 of them done" in progress
    assert "| width 3 | 1 | 30.0 | +20.0 | – | – |" in printed


def test_the_folder_of_another_config_is_not_taken_for_done(grid, tmp_path):
    runs = ablate.make_runs(ablate.load_grid(grid()), tmp_path)
    runs[0].workdir.mkdir(parents=True)
    config = configs.load(str(tmp_path / "config.py"), ["total_steps=7"])
    manifest = {"config": json.loads(configs.to_json(config)), "results": {"values": {}}}
    (runs[0].workdir / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="total_steps=7.*now asks for 1000.*delete that folder"):
        runs[0].results()


def test_names_are_the_config_diff():
    changed = {"seed": (0, 1), "model.fusion.kind": ("early", "late")}
    assert ablate.run_name(changed, changed) == "seed=1,kind=late"
    assert ablate.run_name(changed, {*changed, "a.kind"}) == "seed=1,model.fusion.kind=late"
    both = {"model.image.depth": (1, 2), "model.text.depth": (1, 3), "a.list": (1, (2, "x/y"))}
    assert ablate.run_name(both, both) == "model.image.depth=2,model.text.depth=3,list=_2___x_y__"
    assert ablate.run_name({}, both) == "unchanged"
    long = {f"model.setting_{i}": (0, i) for i in range(30)}
    name, other = (
        ablate.run_name(one, long) for one in (long, long | {"model.setting_29": (0, 30)})
    )
    assert name != other and len(name) < 255 and name.startswith("setting_0=0,setting_1=1")


def test_intervals_against_scipy():
    rng = np.random.default_rng(0)
    values = rng.normal(size=5)
    mean, half = mean_and_interval(list(values))
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([mean - half, mean + half], [low, high])
    # For three values by hand: t(0.975, 2) = 4.303, s = 1, 4.303 / sqrt(3).
    np.testing.assert_allclose(mean_and_interval([1.0, 2.0, 3.0]), (2.0, 2.484), atol=1e-3)
    mean, half = mean_and_interval([0.5])
    assert mean == 0.5 and math.isnan(half)


def test_differences_are_paired_by_seed():
    cell, base = {0: 0.5, 1: 0.7, 2: 0.9, 7: 0.0}, {2: 0.8, 1: 0.6, 0: 0.4, 5: 1.0}
    mean, half = difference(cell, base)
    np.testing.assert_allclose([mean, half], [0.1, 0.0], atol=1e-12)
    low, high = stats.ttest_rel([0.5, 0.8, 0.9], [0.4, 0.6, 0.8]).confidence_interval()
    mean, half = difference({0: 0.5, 1: 0.8, 2: 0.9}, base)
    np.testing.assert_allclose([mean - half, mean + half], [low, high])


def test_tests_are_paired_two_sided_and_corrected_by_holm():
    rng = np.random.default_rng(1)
    cells = [ablate.Cell(name) for name in "abcd"]
    values = {(c, "m"): dict(enumerate(rng.normal(0.1 * i, 0.1, 5))) for i, c in enumerate(cells)}
    del values[cells[3], "m"][4]  # one seed less: given up, or not done
    found = compared(values, cells, cells[0], ["m"])
    base = list(values[cells[0], "m"].values())
    raw = []
    for cell in cells[1:3]:
        mine = list(values[cell, "m"].values())
        raw.append(stats.ttest_rel(mine, base).pvalue)
        differences = np.subtract(mine, base)
        np.testing.assert_allclose(
            found[cell, "m"][1], differences.mean() / differences.std(ddof=1)
        )
    small, large = sorted(raw)
    want = dict(zip(sorted(raw), (2 * small, max(2 * small, large))))
    np.testing.assert_allclose([found[c, "m"][0] for c in cells[1:3]], [want[p] for p in raw])
    assert all(map(math.isnan, found[cells[3], "m"]))
    # Holm 1979 by hand: 0.01 * 4, 0.02 * 3, and 0.03 * 2 and 0.04 are not below the one before.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and math.isnan(holm([math.nan, 0.1])[0])
    same = {(cells[0], "m"): {0: 0.5, 1: 0.6}, (cells[1], "m"): {0: 0.5, 1: 0.6}}
    assert compared(same, cells[:2], cells[0], ["m"])[cells[1], "m"] == (1.0, 0.0)


def changes(path, listed, more=""):
    """The grid's file with a list of changes instead of axes."""
    text = Path(path).read_text()
    text = text.replace('"axes": {"model.width": [1, 2]}', f'"changes": {listed}')
    text = text.replace('        "baseline": {"model.width": 1},\n', more)
    Path(path).write_text(text)
    return path


def test_changes_are_made_one_at_a_time(grid, tmp_path):
    path = changes(grid(seeds=(0,)), '[{"model.width": 2}, {"model.depth": 1, "batch_size": 16}]')
    found = ablate.load_grid(path)
    assert ablate.baseline_of(found) == ablate.Cell("base")
    runs = ablate.make_runs(found, tmp_path)
    assert [run.cell.title for run in runs] == ["base", "width 2", "depth 1, batch_size 16"]
    assert [run.config.model.width for run in runs] == [1, 2, 1]
    assert [run.workdir.name for run in runs] == [
        *("unchanged", "width=2", "batch_size=16,depth=1"),
    ]


class Done:
    """A run whose result is known when it is asked for."""

    def __init__(self, cell, seed, value, folder):
        self.cell, self.seed, self.value = ablate.Cell(cell), seed, value
        self.workdir = folder / f"{cell}{seed}"
        self.command = ("python", "-c", f"open({str(self.workdir / 'done')!r}, 'w').close()")

    def results(self):
        return {"m": self.value} if (self.workdir / "done").exists() else None


def test_hopeless_cells_are_given_up_by_the_rule(tmp_path, capsys):
    table = {"base": (0.5, 0.6, 0.7), "bad": (0.3, 0.4, 0.9), "once": (0.3, 0.58, 0.9)}
    runs = [Done(c, s, values[s], tmp_path) for s in range(3) for c, values in table.items()]
    rule = {"metric": "m", "seeds": 2, "margin": 0.1}
    hopeless = ablate.Hopeless(runs, runs[0].cell, rule)
    assert work(runs, 2, tmp_path, hopeless) == []
    assert [run.workdir.name for run in runs if run.results() is None] == ["bad2"]
    assert "bad2  is given up" in capsys.readouterr().err
    assert hopeless.note().endswith("by more than 10 points of m, and not tested: bad.")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('"give_up": {"metric": "test/top1"},', "give_up of .* is .*: give it margin, metric"),
        (
            '"give_up": {"metric": "x", "seeds": 1, "margin": 0},',
            r"the metric one of the grid's \(test/top1\)",
        ),
    ],
)
def test_a_rule_that_is_not_whole_is_refused(grid, more, message):
    with pytest.raises(ValueError, match=message):
        ablate.load_grid(changes(grid(), '[{"model.width": 2}]', more))


def test_cells_that_differ_in_nothing_are_refused(grid, tmp_path):
    path = changes(grid(), '[{"model.width": 2}, {"model.width": 1}]')
    with pytest.raises(ValueError, match="'base' and 'width 1' of the grid differ in nothing"):
        ablate.make_runs(ablate.load_grid(path), tmp_path)


def test_settings_of_the_same_name_are_told_apart(grid, tmp_path):
    path = changes(grid(seeds=(0,)), '[{"name": "lion"}, {"optim.name": "lion"}]')
    runs = ablate.make_runs(ablate.load_grid(path), tmp_path)
    assert [run.cell.title for run in runs] == ["base", "name lion", "optim.name lion"]
    assert runs[1].workdir.name == "name=lion"
    assert runs[2].workdir.name.endswith(",optim.name=lion")


def test_cells_of_the_same_folder_are_refused(grid, tmp_path):
    path = changes(grid(), '[{"name": "a b"}, {"name": "a_b"}]')
    with pytest.raises(ValueError, match="'name a b' and 'name a_b' .* same folder, name=a_b"):
        ablate.make_runs(ablate.load_grid(path), tmp_path)


def test_two_machines_that_share_the_folder_share_the_runs(grid, tmp_path):
    out = tmp_path / "runs"
    order = out / "order.txt"
    first = start(grid(), out)  # waits in a run until there is a file "go"
    wait_for(lambda: order.exists() and "width=2,seed=1" in order.read_text())
    second = start(grid(), out)
    wait_for(lambda: "width=2,seed=2" in order.read_text())
    (out / "go").touch()
    for process in (first, second):
        printed, progress = process.communicate(timeout=120)
        assert process.returncode == 0, progress
        assert "| width 2 | 3 | 23.0" in printed
    begun = order.read_text().split()
    assert len(begun) == len(set(begun)) == 6  # each once
    # A claim is free again when its holder is gone.
    assert all(not path.read_text() for path in (out / ".claims").glob("*/.lock"))


def test_a_cell_without_runs_has_dashes():
    cell = ablate.Cell("width 1")
    other = ablate.Cell("width 2")
    table = markdown({(cell, "m"): {0: 0.5}}, [cell, other], cell, {"m": "top"})
    assert table.splitlines()[2:] == [
        "| width 1 (baseline) | 1 | 50.0 |  |  |  |",
        "| width 2 | 0 | – | – | – | – |",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (2, 3)}, "baseline {'model.width': 1} of .* is no cell"),
        ({"seeds": ()}, "has no seeds: give it at least one"),
        ({"metrics": {}}, "has no metrics: give it at least one"),
        ({"seeds": (1, 1)}, "Two runs of the grid have the same config, seed=1"),
        ({"metrics": {"test/top2": "x"}}, "metric 'test/top2' is none of .* it has test/other"),
    ],
)
def test_a_wrong_grid_is_one_sentence(grid, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        runs = ablate.make_runs(ablate.load_grid(grid(**change)), tmp_path)
        done = {"config": json.loads(configs.to_json(runs[0].config))}
        done["results"] = {"values": {"test/top1": 0.5, "test/other": 0}}
        runs[0].workdir.mkdir(parents=True)
        (runs[0].workdir / "run.json").write_text(json.dumps(done))
        list(ablate.gather(runs[:1], list(ablate.load_grid(grid(**change))["metrics"])))


def test_a_setting_that_the_config_lacks_names_the_nearest(grid, tmp_path):
    text = Path(grid()).read_text().replace("model.width", "model.widht")
    Path(tmp_path / "grid.py").write_text(text)
    with pytest.raises(ValueError, match="Did you mean 'width'"):
        ablate.make_runs(ablate.load_grid(str(tmp_path / "grid.py")), tmp_path)


def test_a_grid_file_that_is_not_python_is_named(tmp_path):
    (tmp_path / "grid.py").write_text("def get_grid(:\n")
    with pytest.raises(ValueError, match="grid.py is not Python: invalid syntax"):
        ablate.load_grid(str(tmp_path / "grid.py"))
    with pytest.raises(ValueError, match="There is no grid file 'none.py'"):
        ablate.load_grid("none.py")


def test_grids_report_the_held_out_phrasings_of_their_configs():
    asked = []
    for file in sorted((ROOT / "experiments").rglob("grid.py")):
        grid = ablate.load_grid(str(file))
        if "phrasings" in configs.load(str(ROOT / grid["config"])).evals:
            asked.append(file.parent.name)
            assert "phrasings" in {name.split("/")[0] for name in grid["metrics"]}, file
    assert {"grounding", "reasoning"} <= set(asked)
