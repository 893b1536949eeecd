"""What every command needs: the model, its texts, and the servers on their cores."""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.check import Check, Sample, check
from bench.dialects import DIALECTS
from bench.load import ClosedLoop, Record, Target, run_together
from bench.model import Model, OwnReference
from bench.peers.environments import PEERS, SetupError, prepare
from bench.processes import cores, pin
from bench.result import Result, result_of
from bench.server import Server, StartError, berth_command, free_port, running
from bench.workloads import SHAPES, Workload, load_workload


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to be measured; `server` where it is ours to pause."""

    target: Target
    server: Server | None = None

    @contextmanager
    def alone(self, others: list["Contender"]) -> Iterator[None]:
        """Pause the others, whose idling would take the core."""
        paused = [other.server for other in others if other is not self and other.server is not None]
        for server in paused:
            server.pause()
        try:
            yield
        finally:
            for server in paused:
                server.resume()


class Rig:
    """The model and its workloads, and runs of the one against the other."""

    def __init__(self, model: Model, options: argparse.Namespace) -> None:
        self.model = model
        self.left_out: dict[str, str] = {}
        """The peers that cannot be had on this machine, and why."""
        self._options = options
        self.all_cores = os.sched_getaffinity(0)
        self.client_cores, self.server_cores = cores(options.cores)
        self._workloads: dict[str, tuple[Workload, OwnReference]] = {}

    def workload(self, name: str) -> Workload:
        """Give a workload's texts; drawn once."""
        return self._known(name)[0]

    def run(self, target: Target, name: str, number: int) -> Result:
        """Run a workload and check its answers."""
        pin(self.client_cores)
        (record,) = run_together(self.loop(target, name))
        return self.result(target, name, number, record)

    def loop(self, target: Target, name: str) -> ClosedLoop:
        """Make a workload's load."""
        return ClosedLoop(target, self.workload(name), warmup=self._options.warmup, seconds=self._options.seconds)

    def result(self, target: Target, name: str, number: int, record: Record) -> Result:
        """Check a workload's answers and work its figures out."""
        checked = self.check(target, name, record.sample)
        return result_of(target.label, self.workload(name).shape, number, record, checked)

    def check(self, target: Target, name: str, sample: Sample, given: Workload | None = None) -> Check:
        """Hold a sample of a workload's answers against the reference; `given` has its texts in other requests."""
        workload, reference = self._known(name)
        return check(given or workload, sample, target.dialect, reference, lowest=self._options.min_cos)

    def tell_left_out(self) -> None:
        """Print a line a peer that was left out."""
        for peer, reason in self.left_out.items():
            print(f"\nleft out: {peer}: {reason.splitlines()[0]}")

    def _known(self, name: str) -> tuple[Workload, OwnReference]:
        if name not in self._workloads:
            shape, data = SHAPES[name], self._options.data
            workload = self.model.draw(shape) if data is None else load_workload(data, shape)
            self._workloads[name] = workload, OwnReference(self.model, workload)
        return self._workloads[name]

    @contextmanager
    def contenders(self, peers: Sequence[str] = ()) -> Iterator[list[Contender]]:
        """Have Berth, or what --base names, and peers running; a peer that cannot be had is left out."""
        with ExitStack() as stack:
            contenders = [stack.enter_context(self.berth())]
            for peer in dict.fromkeys(peers):
                try:
                    contenders.append(stack.enter_context(self._peer(peer)))
                except (SetupError, StartError) as error:
                    self.left_out[peer] = str(error)
                    print(f"left out: {peer}: {error}", flush=True)
            yield contenders

    @contextmanager
    def berth(self, label: str = "berth", flags: Sequence[str] = ()) -> Iterator[Contender]:
        """Have Berth running, with flags beside those that are given, or take what --base names."""
        options = self._options
        if options.base is not None:
            label = options.label or options.base
            yield Contender(Target(label, options.base, DIALECTS[options.api], options.model_name, options.pid))
            return
        port = free_port()
        flags = [*options.flags, *flags]
        command = berth_command(self.model.artifact.folder, port, flags, threads=len(self.server_cores))
        try:
            with self.started(label, command, port) as ours:
                yield ours
        except StartError as error:
            raise SystemExit(f"bench: {error}") from error

    @contextmanager
    def _peer(self, peer: str) -> Iterator[Contender]:
        options = self._options
        if peer not in PEERS:
            yield Contender(Target(peer, peer, DIALECTS[options.peer_api], options.peer_model_name))
            return
        port = free_port()
        known, command = PEERS[peer], prepare(peer, port)
        with tempfile.TemporaryDirectory(prefix="berth-bench-") as own:  # for what it leaves where it is started
            folder = known.working_folder or own
            with self.started(peer, command, port, api=known.api, model="m", folder=folder) as contender:
                yield contender

    @contextmanager
    def started(
        self,
        label: str,
        command: list[str],
        port: int,
        *,
        api: str = "openai",
        model: str | None = None,
        folder: str | None = None,
        cores: set[int] | None = None,
    ) -> Iterator[Contender]:
        """Have a server of our own running on its cores, by default on the server's; raises `StartError`."""
        pin(self.all_cores)  # a process begins on the cores of the one that starts it
        dialect, where = DIALECTS[api], cores or self.server_cores
        with tempfile.TemporaryDirectory(prefix="berth-bench-") as own:
            log = Path(own) / "server.log"
            with running(command, port, dialect, cores=where, model=model, log=log, folder=folder) as server:
                yield Contender(Target(label, server.base, dialect, model, server.process.pid), server)
