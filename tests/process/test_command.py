"""Help without jax, and errors as one sentence with exit code 2: each in a process of its own."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax.__main__ import COMMANDS
from mmjax.process import command

ROOT = Path(__file__).parents[2]

# Runs a module as `python -m` does; an import of a heavy package is an error that names it.
WITHOUT = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise AssertionError("imported " + name)

sys.meta_path.insert(0, Refuse())
module = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "numpy", "tensorflow_datasets", "matplotlib")


def run(*args, **env):
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_commands_are_listed_and_a_wrong_one_names_the_nearest():
    done = run_without_heavy("mmjax")
    assert done.returncode == 0, done.stderr
    starts = [p for p in (ROOT / "mmjax").rglob("*.py") if "command.start(" in p.read_text()]
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in starts}
    assert {m.removesuffix(".__main__") for m in modules} == set(COMMANDS.values())
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    done = run("-m", "mmjax", "trian")
    assert done.returncode == 2 and "Did you mean 'train'?" in done.stderr


def test_a_command_line_reads_back_as_its_arguments():
    arguments = ["--config=a b.py", "--config.data.train={'kind': 'folder'}", "--x=it's $HOME", ""]
    line = command.line_of("mmjax train", arguments)
    assert shlex.split(line) == ["mmjax", "train", *arguments]
    assert """ "--config.data.train={'kind': 'folder'}" """ in line


def test_a_command_by_name_is_the_module():
    flags = ("--config=configs/clip_emoji.py", "--workdir=unused", "--config.seed=7")
    done = run("-m", "mmjax", "train", *flags, "--print_config")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seed"] == 7


def run_without_heavy(module, *args):
    return run("-c", WITHOUT.replace("{refused}", repr(HEAVY)), module, *args)


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("mmjax.train", ("--config", "--workdir", "--allow_change")),
        ("mmjax.evaluate", ("--workdir", "--step")),
        ("mmjax.plan", ("--config", "--topology", "--limit")),
        ("mmjax.data.convert", ("--config", "--source", "--target", "--size")),
        ("mmjax.preflight", ("--config", "--workdir", "--coordinator")),
        ("mmjax.search", ("--index", "--model", "--image", "--storage")),
        ("mmjax.serve", ("--model", "--host", "--port")),
        ("mmjax.zero_shot", ("--labels", "--templates", "--json")),
        ("mmjax.interpolate", ("--tuned", "--target", "--save_as")),
        ("mmjax.generate", ("--model", "--prompt", "--image")),
    ],
)
def test_help_imports_nothing_heavy(module, flags):
    done = run_without_heavy(module, "--help")
    assert done.returncode == 0, done.stderr
    for flag in flags:
        assert flag in done.stdout
    assert f"python -m {module}" in done.stdout  # the docstring's example
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_refusal_of_imports_works():
    """So that the tests around it can fail."""
    done = run_without_heavy("mmjax.evaluate", "--workdir=nowhere")
    assert done.returncode == 1
    assert "imported jax" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--workdir=w", "--config=c", "--confg.seed=1"), "unknown arguments --confg.seed=1"),
        (("--workdir=w", "--config=c", "seed=1"), "unknown arguments seed=1"),
        (("--workdir=gs://b/w", "--config=gs://b/c.py"), "--config is a URL, which only --workdir"),
        (("--workdr=w", "--config=c", "--workdir=w"), "--workdr=w; did you mean --workdir?"),
        (("--workdir=w", "--conf=c"), "--config"),  # no abbreviations
        (("--config=c",), "--workdir"),
    ],
)
def test_a_wrong_flag_exits_with_2_before_jax(args, said):
    done = run_without_heavy("mmjax.train", *args)
    assert done.returncode == 2
    assert said in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "args", "said"),
    [
        ("mmjax.train", ("--config=configs/clip_emojy.py",), "configs/clip_emoji.py"),
        ("mmjax.evaluate", (), "There is no run in"),
    ],
)
def test_a_bad_value_exits_with_2_and_one_line(module, args, said, tmp_path):
    done = run("-m", module, f"--workdir={tmp_path}/none", *args)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error:")]
    assert said in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


RUN = """
from mmjax.process import command

def fail():
    {body}

command.run(fail)
"""


@pytest.mark.parametrize(
    ("body", "code", "trace"),
    [
        ("pass", 0, False),
        ("raise ValueError('the sentence')", 2, False),
        ("raise KeyboardInterrupt", 130, False),
        ("raise KeyError('a bug')", 1, True),
        ("import json; json.loads('a bug in a library')", 1, True),
        # Compiled code, such as PyAV's, has frames without the name of their module.
        ("g = {}; exec('def f(): raise ValueError(3)', g); g['f']()", 1, True),
        ("from mmjax import config; config.load('nowhere.py')", 2, False),
    ],
)
def test_run_hides_the_trace_of_our_errors_alone(body, code, trace):
    done = run("-c", RUN.replace("{body}", body))
    assert done.returncode == code
    assert ("Traceback" in done.stderr) == trace
    if code == 2:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")


PREPARE = """
import os, sys
from mmjax.process import command
sys.argv = ["x", "--workdir=w", "--config.a=1", "--config.b.c=2"]
args = command.start("doc", command.WORKDIR)
assert args.overrides == ["--config.a=1", "--config.b.c=2"], args
assert args.workdir == "w"
print(os.environ["JAX_COMPILATION_CACHE_DIR"])
"""


def test_start_gathers_overrides_and_the_users_environment_wins(tmp_path):
    mine = str(tmp_path / "mine")
    done = run("-c", PREPARE, JAX_COMPILATION_CACHE_DIR=mine)
    assert done.stdout.strip() == mine, done.stderr
    assert Path(mine).is_dir()
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == str(tmp_path / ".cache" / "mmjax" / "xla"), done.stderr


def test_a_command_may_set_what_jax_reads_when_it_is_imported():
    code = (
        "import sys; from mmjax.process import command; seen = [];"
        "command.run(lambda: seen.append('jax' in sys.modules)); print(seen)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[False]\n", done.stderr


def test_ctrl_c_before_main_leaves_no_trace(monkeypatch):
    before, seen = signal.getsignal(signal.SIGINT), []
    monkeypatch.setattr(sys, "argv", ["mmjax"])
    monkeypatch.setattr(command.runtime, "prepare", lambda: None)
    try:
        for handler, importing in (
            (signal.default_int_handler, signal.SIG_DFL),  # the process just ends
            (signal.SIG_IGN, signal.SIG_IGN),  # as of what runs in the background
        ):
            signal.signal(signal.SIGINT, handler)
            command.start("")
            assert signal.getsignal(signal.SIGINT) == importing
            command.run(lambda: seen.append(signal.getsignal(signal.SIGINT)))
            assert seen.pop() == handler
    finally:
        signal.signal(signal.SIGINT, before)
