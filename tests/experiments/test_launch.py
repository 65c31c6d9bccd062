"""The launchers, with stand-ins for python, gcloud, srun and scontrol: what is started how often.

`test_hosts.py` starts real processes by slurm.sh; a rehearsal of all of it, with real processes
that are killed, is `python -m experiments.launch.rehearse`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from runs import ROOT

LAUNCH = ROOT / "experiments" / "launch"

# Each writes down its arguments; python ends with the next code of a list, gcloud describes the
# next state of one, and runs on "a host" what it is given.
PYTHON = """\
echo "$*" >> {folder}/python
[[ $* == *mmjax.preflight* && ! -e {folder}/strict ]] && exit 0
code=$(head -n 1 {folder}/codes); sed -i 1d {folder}/codes
[[ $code == wait ]] && {{
    trap 'exit 143' TERM; touch {folder}/waits; while true; do sleep 0.02; done; }}
exit ${{code:-99}}
"""
GCLOUD = """\
echo "$4 $5 ${{*:6}}" >> {folder}/gcloud
case "$*" in
*describe*) state=$(head -n 1 {folder}/states); sed -i 1d {folder}/states
    [[ $state == MISSING ]] && exit 1; echo $state ;;
*ssh*) for word in "$@"; do [[ $word == --command=* ]] && bash -c "${{word#--command=}}"; done ;;
esac
"""
SRUN = 'while [[ $1 == --* ]]; do shift; done; exec "$@"\n'
SCONTROL = 'echo "$*" >> {folder}/scontrol\n'


class Place:
    """A folder with the stand-ins on the PATH, and with ~/mmjax."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "mmjax").symlink_to(ROOT)
        stand_ins = {"python": PYTHON, "gcloud": GCLOUD, "srun": SRUN, "scontrol": SCONTROL}
        (folder / "bin").mkdir()
        for name, script in stand_ins.items():
            path = folder / "bin" / name
            path.write_text("#!/bin/bash\n" + script.format(folder=folder))
            path.chmod(0o755)

    def start(self, *words, codes=(), states=(), **variables):
        (self.folder / "codes").write_text("".join(f"{code}\n" for code in codes))
        (self.folder / "states").write_text("".join(f"{state}\n" for state in states))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHON": str(self.folder / "bin" / "python"),
            "PAUSE": "0",
        }
        return subprocess.Popen(
            [str(word) for word in words],
            env=environment | variables,
            cwd=ROOT,
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, *words, **settings):
        """(exit code, stderr)"""
        process = self.start(*words, **settings)
        error = process.communicate(timeout=60)[1]
        return process.returncode, error

    def calls(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def trainings(self):
        return [line for line in self.calls("python") if "mmjax.train" in line]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_host_checks_and_then_trains(place):
    assert place.run(LAUNCH / "host.sh", "c.py", "w", "--config.a='b c'", codes=[7])[0] == 7
    flags = "--config=c.py --workdir=w --config.a='b c'"
    assert place.calls("python") == [f"-m mmjax.preflight {flags}", f"-m mmjax.train {flags}"]
    (place.folder / "strict").touch()  # preflight refuses
    assert place.run(LAUNCH / "host.sh", "c.py", "w", codes=[2])[0] == 2
    assert len(place.trainings()) == 1


def test_again_after_a_crash_and_not_after_a_refusal(place):
    gpu = (LAUNCH / "gpu.sh", "c.py", "w")
    code, error = place.run(*gpu, codes=[1, 137, 3, 0])
    assert code == 0 and len(place.trainings()) == 4
    assert "it ended with code 137; restart 2" in error
    for final in (2, 130, 143):
        assert place.run(*gpu, codes=[1, final, 0])[0] == final
    code, error = place.run(*gpu, codes=[1, 1, 1, 1], MAX_RESTARTS="2")
    assert code == 1 and "after 2 restarts: giving up" in error


def test_sigterm_reaches_the_run(place):
    process = place.start(LAUNCH / "gpu.sh", "c.py", "w", codes=["wait", 0])
    until = time.monotonic() + 60
    while not (place.folder / "waits").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143 and len(place.trainings()) == 1


@pytest.mark.parametrize(("code", "requeued"), [(0, 0), (2, 0), (130, 0), (143, 1), (1, 1)])
def test_a_slurm_job_that_may_go_on_goes_back_into_the_queue(place, code, requeued):
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "17"}
    ended, _ = place.run(LAUNCH / "slurm.sh", "c.py", "w", codes=[code], **job)
    assert ended == (0 if requeued else code)
    assert place.calls("scontrol") == ["requeue 17"] * requeued
    often = {"SLURM_RESTART_COUNT": "20"}
    ended, _ = place.run(LAUNCH / "slurm.sh", "c.py", "w", codes=[code], **job, **often)
    assert ended == code and len(place.calls("scontrol")) == requeued


SLICE = {"TPU": "t", "ZONE": "z"}
QUEUED = {**SLICE, "TYPE": "v5litepod-16", "VERSION": "v2", "SETUP": "touch ~/set-up", "SPOT": "1"}
TPU = (LAUNCH / "tpu.sh", "c.py", "/w", "--config.a=b c")


def test_a_slice_that_is_there(place):
    code, error = place.run(*TPU, codes=[1, 0], **SLICE)
    assert code == 0 and "restart 1" in error
    assert place.trainings() == ["-m mmjax.train --config=c.py --workdir=/w --config.a=b c"] * 2
    assert all(call.startswith("ssh t --zone=z --worker=all") for call in place.calls("gcloud"))
    code, _ = place.run(*TPU, codes=[2, 0], **SLICE)
    assert code == 2 and len(place.trainings()) == 3
    code, error = place.run(*TPU, codes=[1, 1, 1], MAX_RESTARTS="1", **SLICE)
    assert code == 1 and "giving up" in error


def test_a_queued_slice_that_is_taken_away_is_asked_for_again(place):
    states = ["MISSING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    states += ["ACTIVE"]  # a crash; the slice is still there
    states += ["SUSPENDING", "SUSPENDED", "MISSING", "ACTIVE"]
    code, error = place.run(*TPU, codes=[1, 143, 0], states=states, **QUEUED)
    assert code == 0 and len(place.trainings()) == 3, error
    verbs = [call.split()[0] for call in place.calls("gcloud")]
    done = [verb for verb in verbs if verb != "describe"]
    # ssh: to set up a new slice, and to train.
    assert done == ["create", "ssh", "ssh", "ssh", "delete", "create", "ssh", "ssh", "delete"]
    (asked, _) = (call for call in place.calls("gcloud") if call.startswith("create"))
    flags = "--node-id=t --accelerator-type=v5litepod-16 --runtime-version=v2 --spot"
    assert asked == f"create t --zone=z {flags}"
    assert (place.folder / "set-up").exists() and "t is SUSPENDED" in error


def test_a_slice_may_be_kept(place):
    assert place.run(*TPU, codes=[2], states=["ACTIVE"], KEEP="1", **QUEUED)[0] == 2
    assert [call.split()[0] for call in place.calls("gcloud")] == ["describe", "ssh"]


def test_the_jobset_starts_as_many_pods_as_it_says():
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert job["parallelism"] == job["completions"] == int(values["JAX_NUM_PROCESSES"])
    name = jobset["metadata"]["name"]
    host, _, port = values["JAX_COORDINATOR_ADDRESS"].rpartition(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert int(port) == container["ports"][0]["containerPort"]
    script, config, workdir = container["command"]
    assert os.access(ROOT / script, os.X_OK) and (ROOT / config).is_file()
    (mount,) = container["volumeMounts"]
    assert Path(workdir).is_relative_to(mount["mountPath"])
    # A refusal fails the whole set; anything else fails the job, whose set starts again.
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2] and rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0


# What the processes of a run print and write, as far as a rehearsal looks at it.
ACTOR = """
import json, os, sys, time
from pathlib import Path

work = Path([w for w in sys.argv if w.startswith("--workdir=")][0].partition("=")[2])
if "mmjax.preflight" in sys.argv:
    print("ok  all: is ready")
    sys.exit()
me, first = int(os.environ["JAX_PROCESS_ID"]), not (work / "lost").exists()
work.mkdir(parents=True, exist_ok=True)
if first:
    (work / f"pid{me}").write_text(str(os.getpid()))
    while len(list(work.glob("pid*"))) < 3:
        time.sleep(0.02)
    print("starts from step 0 of 9\\n 11.1 %  step 1/9", flush=True)
    (work / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)
    (work / "checkpoints" / "3" / "_CHECKPOINT_METADATA").touch()
    print(" 44.4 %  step 4/9", flush=True)
    while True:
        time.sleep(0.02)
        pids = [int(p.read_text() or 0) for p in work.glob("pid*")]
        if any(not Path(f"/proc/{p}").exists() or "Z" in
               Path(f"/proc/{p}/stat").read_text().split()[2] for p in pids if p):
            (work / "lost").touch()
            sys.exit(1)
print(f"resumed at step {os.environ['RESUMES']} of 9", flush=True)
if me == 0:
    lines = [{"step": n, "train/loss": 1.0} for n in range(1, 10)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(x) + "\\n" for x in lines))
    spent = [{"began": 0, "time": 1, "step": 0, "lost": {}}, {"time": 5, "step": 4, "lost": {}}]
    spent += [{"began": 8, "time": 9, "step": 3, "lost": {}}, {"time": 12, "step": 9, "lost": {}}]
    (work / "goodput.jsonl").write_text("".join(json.dumps(x) + "\\n" for x in spent))
    (work / "report.html").touch()
"""


@pytest.mark.parametrize("resumes", [3, 0])
def test_a_rehearsal_goes_through_all_stages(tmp_path, capsys, monkeypatch, resumes):
    from experiments.launch.rehearse import Rehearsal, rehearse

    (tmp_path / "actor.py").write_text(ACTOR)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} -S {tmp_path / "actor.py"} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(python))
    monkeypatch.setenv("RESUMES", str(resumes))
    run = Rehearsal(["c.py", str(tmp_path / "run")], tmp_path / "logs", processes=3, patience=30)
    if resumes == 0:  # the checkpoint was not used
        with pytest.raises(SystemExit):
            rehearse(run, victim=1)
        error = capsys.readouterr().out
        assert "ended before: restarted, and resumed at step 3" in error
        assert error.endswith("ends with:\nok  all: is ready\nresumed at step 0 of 9\n")
        return
    rehearse(run, victim=1)
    said = capsys.readouterr().out
    assert said.count("ok ") == 11
    assert "process 1 was killed, and all ended (codes 1, -9, 1)" in said
    assert "goodput adds up to the 12 s of wall time, 3 s of them down" in said
    with pytest.raises(SystemExit, match="has a run already"):
        (tmp_path / "run" / "run.json").touch()
        rehearse(run, victim=1)
