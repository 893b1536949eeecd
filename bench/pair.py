"""`python -m bench pair --other DIR`: this tree's Berth beside another checkout's, in turns on one core.

Both serve the same model, each as its own export writes it, unless `--model` is an artifact, which both serve as it is.
A round runs one right after the other, so that what slows the machine slows both; ratios are medians of the rounds'.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import median_of, ratio_of_medians
from bench.result import Result
from bench.rig import Contender, Rig
from bench.server import berth_command, free_port
from bench.table import table
from berth.models import DEFAULT_MODEL, given_artifact

SETTLE_SECONDS = 4.0
"""After the start: a Berth of before December 2026 calibrates for two seconds once it has given an answer."""
HEAD = ("workload", "this, texts/s", "other, texts/s", "this ÷ other", "this, texts/CPU s", "other", "this ÷ other")


@dataclass(frozen=True, slots=True)
class Round:
    """What a workload came to in a round, of this tree and of the other; CPU is the servers'."""

    workload: str
    round: int
    this_rate: float
    other_rate: float
    this_per_cpu_second: float
    other_per_cpu_second: float
    valid: bool

    def row(self) -> list[float]:
        """Give the figures of the table."""
        by_rate = ratio_of_medians([self.this_rate], [self.other_rate])
        by_cpu = ratio_of_medians([self.this_per_cpu_second], [self.other_per_cpu_second])
        rates = [self.this_rate, self.other_rate, by_rate]
        return [*rates, self.this_per_cpu_second, self.other_per_cpu_second, by_cpu]


def pair(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure and print; gives whether every answer was right."""
    rounds: dict[str, list[Round]] = {name: [] for name in options.workloads}
    with rig.berth() as this, other_checkout(rig, options) as other:
        time.sleep(SETTLE_SECONDS)
        both = [this, other]
        for number in range(options.rounds):
            for name in options.workloads:
                results: dict[Contender, Result] = {}
                for contender in both if number % 2 == 0 else reversed(both):
                    with contender.alone(both):
                        results[contender] = rig.run(contender.target, name, number)
                found = round_of(results[this], results[other])
                rounds[name].append(found)
                print(f"round {number}, {name}: {found.row()[-1]:.3f} by CPU", "" if found.valid else "NOT VALID")
                if options.out is not None:
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"pair": str(options.other), **asdict(found), **about}) + "\n")
    print("", table(HEAD, [[name, *medians(of)] for name, of in rounds.items()]), sep="\n")
    return all(found.valid for of in rounds.values() for found in of)


def round_of(this: Result, other: Result) -> Round:
    """Put a round's two results together."""
    return Round(
        this.workload,
        this.round,
        this.texts_per_second,
        other.texts_per_second,
        1000 / (this.cpu_ms_per_text or float("nan")),
        1000 / (other.cpu_ms_per_text or float("nan")),
        this.valid and other.valid,
    )


def medians(rounds: list[Round]) -> list[float]:
    """Give the medians of a workload's rounds; a ratio's is that of the rounds' ratios."""
    return [median_of(column) for column in zip(*(found.row() for found in rounds), strict=True)]


@contextmanager
def other_checkout(rig: Rig, options: argparse.Namespace) -> Iterator[Contender]:
    """Have the other checkout's Berth running on the same core; raises `StartError`."""
    folder = options.other
    python = str(options.other_python or folder / ".venv" / "bin" / "python")
    name, port = options.model or DEFAULT_MODEL, free_port()
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as own:
        artifact = given_artifact(name)
        if artifact is None:
            artifact = Path(own) / "artifact"
            export = [python, "-m", "model_export", name, str(artifact), "--precision", options.precision]
            if subprocess.run(export, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603
                raise SystemExit(f"bench: {folder} cannot export {name}")
        command = [python, *berth_command(artifact.resolve(), port, options.flags)[1:]]
        with rig.started("other", command, port, folder=str(folder)) as contender:
            yield contender
