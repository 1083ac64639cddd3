"""A real Slurm of two nodes on loopback, out of Debian's packages, without installing them."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libmunge2"),
    # What their binaries load beside what every Debian has.
    *("libhwloc15", "liblua5.1-0", "libdbus-1-3", "libjson-c5", "libnuma1", "libyaml-0-2"),
)
NODES = ("n1", "n2")
# For a recipe's launcher: both nodes are this machine, whose name need not resolve, and the
# variable is for Slurm's commands alone.
SETUP = ["export GLOO_SOCKET_IFNAME=lo", "unset LD_LIBRARY_PATH"]
_CONF = """\
ClusterName=svd
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={run}/munge.sock
CryptoType=crypto/munge
PluginDir={lib}/slurm-wlm
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool-%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd-%n.pid
SlurmctldLogFile={run}/slurmctld.log
SlurmdLogFile={run}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdTimeout=10
KillWait=20
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return why no cluster can be started here, or None."""
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            return f"Slurm comes from Debian's packages, and there is no {program}"
    if os.geteuid() != 0:
        return "Slurm's daemons want to run as root"
    known = subprocess.run(["apt-cache", "show", "slurmctld"], capture_output=True, check=False)
    return "apt knows no slurmctld: `apt-get update` may help" if known.returncode else None


@dataclass
class SlurmCluster:
    """The running daemons, and Slurm's commands as a folder for the PATH."""

    root: Path
    # Whether jobs that were queued again start at once. Not after a node was lost: orders to end
    # the first start may reach the node late, and Slurm's two minutes let them pass.
    hastens: bool = True
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        """Wrappers that find the libraries and this cluster's configuration."""
        return self.root / "bin"

    @property
    def _system(self) -> Path:
        return self.root / "system"

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands."""
        path = str(self.bin / command[0])
        done = subprocess.run([path, *command[1:]], check=True, capture_output=True, text=True)
        return done.stdout

    def unpack(self) -> None:
        """Fetch the packages and lay their files out below the root."""
        debs = self.root / "debs"
        debs.mkdir(parents=True)
        command = ["apt-get", "download", "-qq", *PACKAGES]
        subprocess.run(command, cwd=debs, check=True, capture_output=True)
        for deb in sorted(debs.glob("*.deb")):
            subprocess.run(["dpkg", "-x", deb, self._system], check=True)
        self.bin.mkdir()
        for program in (self._system / "usr/bin").iterdir():
            wrapper = self.bin / program.name
            wrapper.write_text(
                f"#!/bin/sh\nexport SLURM_CONF={self.root}/slurm.conf\n"
                f'LD_LIBRARY_PATH={self._libraries} exec {program} "$@"\n'
            )
            wrapper.chmod(0o755)

    @property
    def _libraries(self) -> str:
        lib = next((self._system / "usr/lib").glob("*-linux-gnu"))
        other = self._system / "lib" / lib.name
        return f"{lib}:{other}:{lib}/slurm-wlm"

    def start(self) -> None:
        """Start munge, the controller and both nodes; return when they are idle."""
        run = self.root / "run"
        (run / "state").mkdir(parents=True)
        host = socket.gethostname()
        lib = self._libraries.split(":")[0]
        ports = [_free_port() for _ in range(3)]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2"
            f" RealMemory=4000 State=UNKNOWN"
            for node, port in zip(NODES, ports, strict=False)
        )
        conf = _CONF.format(host=host, run=run, lib=lib, ctld_port=ports[2], nodes=nodes)
        (self.root / "slurm.conf").write_text(conf)
        key = run / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        names = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        files = ("munge.sock", "munge.key", "munge.pid", "munge.log", "munge.seed")
        options = [f"--{name}={run / file}" for name, file in zip(names, files, strict=True)]
        self._daemon("munge", "munged", "--foreground", "--force", *options)
        self._daemon("slurmctld", "slurmctld-wlm", "-D")
        for node in NODES:
            self.start_node(node)
        self.wait_idle()

    def start_node(self, node: str) -> None:
        """Start a node's daemon, for the first time or after it was killed."""
        stepd = self._system / "usr/sbin/slurmstepd-wlm"
        self._daemon(node, "slurmd-wlm", "-D", "-N", node, "-d", str(stepd))

    def _daemon(self, name: str, program: str, *options: str) -> None:
        env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": self._libraries,
            "SLURM_CONF": str(self.root / "slurm.conf"),
        }
        with (self.root / "run" / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [str(self._system / "usr/sbin" / program), *options],
                env=env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def hasten(self) -> None:
        """Let jobs that were queued again start now; Slurm makes them wait two minutes."""
        if not self.hastens:
            return
        for line in self.run("squeue", "-h", "-t", "PENDING", "--format=%i %r").splitlines():
            job_id, reason = line.split(maxsplit=1)
            if reason == "BeginTime":
                self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def wait_idle(self, *, timeout_s: float = 60.0) -> None:
        """Wait until both nodes take jobs."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                states = self.run("sinfo", "--noheader", "--Node", "--format=%T").split()
            except subprocess.CalledProcessError as err:
                states = [err.stderr]
            if states == ["idle", "idle"]:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"nodes are {states}; see {self.root}/run")
            time.sleep(0.3)

    def kill_node(self, node: str) -> int:
        """Kill a node's daemon and all that it started; return how many processes that was."""
        self._daemons[node].kill()
        victims = []
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                if environ.get("SLURMD_NODENAME") != node or not self._is_ours(environ):
                    continue
                parent = process.parent()
                if parent is not None and parent.name().startswith("slurmstepd"):
                    victims.append(parent)
                victims.append(process)
            except psutil.Error:
                continue
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        return len(victims) + 1

    def _is_ours(self, environ: dict[str, str]) -> bool:
        return environ.get("SLURM_CONF", "").startswith(str(self.root))

    def stop(self) -> None:
        """Cancel every job and end every daemon."""
        for node in NODES:
            self.kill_node(node)
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons.values():
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()


@contextmanager
def slurm_cluster(root: Path) -> Iterator[SlurmCluster]:
    """Run a cluster for the length of a block; skip the test where none can be started."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    cluster, over = SlurmCluster(root), threading.Event()
    cluster.unpack()
    cluster.start()
    hastener = threading.Thread(target=_hasten_until, args=(cluster, over))
    hastener.start()
    try:
        yield cluster
    finally:
        over.set()
        hastener.join()
        cluster.stop()


def _hasten_until(cluster: SlurmCluster, over: threading.Event) -> None:
    while not over.wait(1.0):
        # A job may start, or end, between the question and the order.
        with suppress(subprocess.CalledProcessError):
            cluster.hasten()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
