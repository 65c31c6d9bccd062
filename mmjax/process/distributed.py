"""Several processes as one run: how they find each other, wait for each other, and end together.

One process per host (or per GPU), each started with the same command. Process 0 is the coordinator.
Messages between them go through its key-value store, not through the devices, so that they also
arrive while a device is stuck.
"""

import argparse
import atexit
import contextlib
import glob
import importlib.util
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

import jax
from jax._src.distributed import global_state  # jax.distributed has no public way to its store

POLL_SECONDS = 1.0
SILENT_SECONDS = 4.0  # without a sign of life, after which a process counts as lost
_PREFIX = "mmjax"
_barriers = itertools.count()


class HostsError(ValueError):
    """Processes that do not join, or do not agree."""


def detect_cluster(environ: Mapping[str, str] = os.environ) -> str | None:
    """The cluster that started this process as one of several, or None.

    Only clusters from which jax.distributed can take all its settings, recognized as jax does, and
    only with more than one process.
    """
    if {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= environ.keys():
        return "SLURM" if int(environ.get("SLURM_NTASKS", "1")) > 1 else None
    if "OMPI_MCA_orte_hnp_uri" in environ:
        return "Open MPI" if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1 else None
    if (
        environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu"
        or "TPU_SKIP_MDS_QUERY" in environ
    ):
        return None
    # A TPU VM learns from its metadata server how many hosts its slice has; one is fine too.
    has_chips = bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))
    return "Cloud TPU" if has_chips and importlib.util.find_spec("libtpu") else None


def initialize(args: argparse.Namespace, timeout: float = 300) -> None:
    """Join the run's other processes; does nothing where there are none. Call before any device.

    Args:
      args: `coordinator` ("host:port"), `num_processes`, `process_id`, each None if not given:
        see `mmjax.process.command.PROCESSES`.
      timeout: seconds to wait for the others.

    Raises:
      HostsError: settings that are incomplete. A coordinator that cannot be reached, or processes
        that do not come, end the process with one sentence and exit code 2.
    """
    given = _settings(args)
    cluster = None if given else detect_cluster()
    if not given and not cluster:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would take over SIGTERM
    # jaxlib aborts the process with a native trace when its own timeout runs out: ours is shorter.
    late = threading.Timer(timeout, _late, (cluster, timeout))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(initialization_timeout=int(timeout) + 60, **given)
    except RuntimeError as error:  # such as a port that is in use, or metadata that do not answer
        first = str(error).strip().splitlines()[0]
        raise HostsError(f"{_me()} could not join the other processes: {first}") from error
    finally:
        late.cancel()
    if jax.process_count() == 1:
        return
    _publish("host", socket.gethostname())
    exchange("start")
    if jax.process_index() > 0:  # only process 0 prints
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    _Watcher().start()
    if jax.process_index() > 0:
        _Line(global_state.coordinator_address, hosts()[0]).start()
    print(
        f"{jax.process_count()} processes on {len(set(hosts().values()))} hosts, "
        f"{jax.device_count()} devices"
    )


def _settings(args: argparse.Namespace) -> dict:
    """Arguments of jax.distributed.initialize that were given; empty if none were."""
    if args.coordinator is None:
        if args.num_processes is not None or args.process_id is not None:
            raise HostsError(
                "--num_processes and --process_id need --coordinator=HOST:PORT, the address of "
                "process 0 (or JAX_COORDINATOR_ADDRESS in the environment)."
            )
        return {}
    host, _, port = args.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise HostsError(f"--coordinator is '{args.coordinator}': write it as HOST:PORT.")
    count, index = args.num_processes, args.process_id
    if count is None and index is None and "OMPI_COMM_WORLD_RANK" in os.environ:
        # Open MPI 5 no longer gives the address of process 0, but still size and rank.
        count, index = (int(os.environ[f"OMPI_COMM_WORLD_{x}"]) for x in ("SIZE", "RANK"))
    if count is None and index is None and detect_cluster():
        return {"coordinator_address": args.coordinator}
    if count is None or index is None:
        raise HostsError(
            f"--coordinator={args.coordinator} needs --num_processes and --process_id too: this "
            "process was not started by a cluster that sets them."
        )
    if not 0 <= index < count:
        raise HostsError(
            f"--process_id is {index} and --num_processes {count}: ids run from 0 to {count - 1}."
        )
    return {"coordinator_address": args.coordinator, "num_processes": count, "process_id": index}


def _late(cluster: str | None, timeout: float) -> None:
    """End the process: the others did not join in time."""
    address = global_state.coordinator_address or f"that {cluster} should name"
    try:
        host, _, port = str(address).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        what = (
            f"reached the coordinator {address}, and not all {global_state.num_processes} "
            "processes came"
        )
        fix = "start the missing ones, or correct the number of processes"
    except (OSError, ValueError) as error:
        what = f"could not reach the coordinator {address} ({error})"
        fix = "start process 0 there, or correct the address or the firewall"
    _print_error(f"error: {_me()} {what} within {timeout:.0f} s: {fix}.")
    os._exit(2)


def _alone() -> bool:
    return global_state.client is None or global_state.num_processes == 1


def _me() -> str:
    return f"process {global_state.process_id} on {socket.gethostname()}"


def _print_error(sentence: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


def is_main() -> bool:
    """Whether this is process 0, the only one that writes files."""
    return jax.process_index() == 0


def progress_stream() -> TextIO:
    """Where a progress line goes: standard error of process 0, nowhere in the others."""
    return sys.stderr if is_main() else sys.stdout


def hosts() -> dict[int, str]:
    """Host name of each process that has joined."""
    return _published("host")


def _published(what: str) -> dict[int, str]:
    """Process -> value, of the processes that have published theirs."""
    found = global_state.client.key_value_dir_get(f"{_PREFIX}/{what}/")
    return {int(key.rsplit("/", 1)[1]): json.loads(value) for key, value in found}


def _publish(what: str, value: str) -> None:
    key = f"{_PREFIX}/{what}/{global_state.process_id}"
    global_state.client.key_value_set(key, json.dumps(value), allow_overwrite=True)


def exchange(what: str, value: str = "", timeout: float = 600) -> list[str]:
    """Every process's value, in order of process; all of them wait here for each other.

    Args:
      what: the name of this exchange, the same in all processes; for the message.
      timeout: seconds; a process that died is noticed earlier.

    Raises:
      HostsError: naming the processes, with their hosts, that did not come in time.
    """
    if _alone():
        return [value]
    name = f"{next(_barriers)}-{what}"
    _publish(name, value)
    try:
        global_state.client.wait_at_barrier(f"{_PREFIX}/{name}", int(timeout * 1000))
    except jax.errors.JaxRuntimeError as error:
        came, names = _published(name), hosts()
        missing = [i for i in range(jax.process_count()) if i not in came]
        named = ", ".join(f"process {i} on {names.get(i, 'an unknown host')}" for i in missing)
        raise HostsError(
            f"{_me()} waited {timeout:.0f} s at '{what}' and these did not come: "
            f"{named or 'none is missing now, they came too late'}; look at their logs."
        ) from error
    values = _published(name)
    return [values[i] for i in range(jax.process_count())]


def check_same(what: str, value: str) -> None:
    """Check that all processes have the value of process 0.

    Raises:
      HostsError: naming the processes that do not, and their hosts.
    """
    values = exchange(what, value)
    if len(set(values)) == 1:
        return
    names = hosts()
    others = ", ".join(f"process {i} on {names[i]}" for i, v in enumerate(values) if v != values[0])
    raise HostsError(
        f"{what} differs between the processes: {others} and process 0 on {names[0]} do not agree; "
        "start all of them with the same command, on the same code and files."
    )


@contextlib.contextmanager
def main_first(what: str, timeout: float = 24 * 3600) -> Iterator[None]:
    """Process 0 runs the body first, then the others, which find its files on the shared disk.

    Nothing in the body may wait for another process.
    """
    if not is_main():
        exchange(what, timeout=timeout)
    yield
    if is_main():
        exchange(what, timeout=timeout)


def leave(sentence: str, code: int) -> None:
    """End this process at once, and with it the others, which print why.

    A normal exit waits for all processes, while the others may be waiting for this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if _alone():
        sys.exit(code)
    with contextlib.suppress(Exception):
        _publish("left", f"{code} {sentence}")
        # Process 0 is the coordinator: it stays until the others have read the reason.
        until = time.monotonic() + 10
        count = jax.process_count()
        while is_main() and time.monotonic() < until and len(_published("left")) < count:
            time.sleep(POLL_SECONDS / 4)
    os._exit(code)


def lost_peer() -> str | None:
    """A sentence about a process that has stopped without a word, such as one that was killed.

    For an error of a collective operation, which does not say whose end was its cause: looks for
    `SILENT_SECONDS` whether every other process gives signs of life. A lost process 0 is noticed
    earlier, by `_Line`.
    """
    if _alone():
        return None
    try:
        before, names = _published("alive"), hosts()
        time.sleep(SILENT_SECONDS)
        now = _published("alive")
    except jax.errors.JaxRuntimeError:  # the store is that of process 0
        return _lost(0, "its host")
    silent = [i for i in sorted(before) if now[i] == before[i] and i != jax.process_index()]
    return _lost(silent[0], names.get(silent[0], "an unknown host")) if silent else None


def _lost(index: int, host: str) -> str:
    return (
        f"process {index} on {host} was lost: it gives no sign of life, and was killed (perhaps "
        "as memory ran out) or its machine has stopped; look at its log, and start all processes "
        "again to resume from the last checkpoint"
    )


class _Line(threading.Thread):
    """A connection to process 0, whose end is noticed at once.

    jax's own client would end this process by an abort and a native trace, milliseconds after
    process 0 was killed, and calls no function of ours first (jaxlib 0.10.2). The line is a TCP
    connection to the coordinator's port on which nothing is said.
    """

    def __init__(self, address: str, host: str):
        super().__init__(name="mmjax.process.line", daemon=True)
        where, _, port = address.rpartition(":")
        self._address, self._host = (where.strip("[]"), int(port)), host
        self._ended = threading.Event()
        atexit.register(self._ended.set)  # before jax's own end, in which process 0 ends too

    def run(self) -> None:
        connected = False
        while True:
            try:
                with socket.create_connection(self._address, timeout=SILENT_SECONDS) as line:
                    connected = True
                    _keep_alive(line)
                    while line.recv(1024):
                        pass
            except OSError as error:
                if not connected:  # such as by way of a proxy, which jax can use
                    return
                if isinstance(error, ConnectionRefusedError | TimeoutError):
                    break
            time.sleep(0.001)  # a server also ends a line on which nothing is said: then there is
            # another, and process 0 is lost only where there is none
        if not self._ended.is_set():
            _print_error(f"error: {_lost(0, self._host)}.")
            os._exit(1)


def _keep_alive(line: socket.socket) -> None:
    """The connection ends, by `TimeoutError`, within half a minute where its host is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # of Linux
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _Watcher(threading.Thread):
    """Gives signs of life, and ends this process when another has ended early."""

    def __init__(self):
        super().__init__(name="mmjax.process.distributed", daemon=True)
        self._done = threading.Event()
        atexit.register(self.finish)  # before jax's own end, which waits for the other processes

    def finish(self) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        mine = jax.process_index()
        for count in itertools.count():
            if self._done.wait(POLL_SECONDS):
                return
            try:
                _publish("alive", str(count))
                left = _published("left")
            except jax.errors.JaxRuntimeError:  # the coordinator is gone: jax itself ends us
                return
            if left and mine not in left:
                index, (code, _, sentence) = next((i, v.partition(" ")) for i, v in left.items())
                host = hosts().get(index, "an unknown host")
                _print_error(
                    f"process {index} on {host} ended, and so does process {mine}: {sentence}"
                )
                with contextlib.suppress(Exception):
                    _publish("left", f"{code} after process {index}")
                os._exit(int(code))
