"""`python -m bench run`: the workloads, round by round, each beside its ceiling, its floor and the peers."""

import argparse
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field

from bench.ceiling import Ceiling, measure_ceiling
from bench.figures import median_of, ratio_of_medians
from bench.floor import Floor, sizes_of
from bench.picture import picture
from bench.processes import pin
from bench.result import Result
from bench.rig import Contender, Rig
from bench.table import table
from bench.workloads import SHAPES

HEAD = (
    *("workload", "server", "texts/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms/text"),
    *("served ÷ ceiling", "the same by CPU", "encode ÷ floor", "peak MiB", "lowest cosine"),
)


@dataclass(slots=True)
class Comparison:
    """Everything measured, and how it is told."""

    rig: Rig
    options: argparse.Namespace
    about: dict[str, str]
    results: dict[tuple[str, str], list[Result]] = field(default_factory=lambda: defaultdict(list))
    ceilings: dict[str, list[Ceiling]] = field(default_factory=lambda: defaultdict(list))
    floors: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    valid: bool = True

    def run(self) -> bool:
        """Measure and print; gives whether every answer was right."""
        with self.rig.contenders(self.options.peer) as contenders:
            self._rounds(contenders)
        print(self.table())
        if self.options.picture is not None:
            self.options.picture.write_text(picture(self._rates()), encoding="utf-8")
        self.rig.tell_left_out()
        return self.valid

    def table(self) -> str:
        """Lay the medians of the rounds out, a workload and a server a line."""
        labels = list(dict.fromkeys(label for label, _ in self.results))
        pairs = [(name, label) for name in self.options.workloads for label in labels]
        tables = [table(HEAD, [self._row(name, label) for name, label in pairs])]
        ours, *peers = labels
        if peers:
            for title, ratio in (("texts/s", self._ratio), ("texts per CPU second", self._cpu_ratio)):
                rows = [[name, *(ratio(name, ours, peer) for peer in peers)] for name in self.options.workloads]
                tables.append(table([f"{title}, {ours} ÷", *peers], rows))
        return "\n\n".join(tables)

    def _rates(self) -> dict[str, dict[str, float]]:
        """Give the medians of the rounds by workload and server."""
        labels = list(dict.fromkeys(label for label, _ in self.results))
        return {
            f"{name}, {SHAPES[name].title}": {
                label: median_of(result.texts_per_second for result in self.results[label, name]) for label in labels
            }
            for name in self.options.workloads
        }

    def _rounds(self, contenders: list[Contender]) -> None:
        for number in range(self.options.rounds):
            for name in self.options.workloads:
                for contender in contenders if number % 2 == 0 else reversed(contenders):
                    with contender.alone(contenders):
                        self._keep(self.rig.run(contender.target, name, number))
                if not self.options.no_ceiling:
                    with Contender(contenders[0].target).alone(contenders):
                        self._measure_limits(name)

    def _keep(self, result: Result) -> None:
        self.results[result.label, result.workload].append(result)
        self.valid &= result.valid
        print(
            f"{result.workload} {result.label}: {result.texts_per_second:.1f} texts/s, p50 {result.p50_ms:.2f} ms, "
            f"lowest cosine of {result.checked_texts}: {result.lowest_cosine:.6f}"
            + (f", NOT VALID {result.errors}" if not result.valid else ""),
            flush=True,
        )
        self._write(asdict(result))

    def _measure_limits(self, name: str) -> None:
        pin(self.rig.server_cores)
        model, known = self.rig.model, self.ceilings[name]
        seconds = min(self.options.seconds, 5.0)
        ceiling = measure_ceiling(model, self.rig.workload(name), seconds, known[0].budget if known else None)
        manifest = model.artifact.manifest
        sizes = sizes_of(str(model.artifact.graph), manifest.hidden_size, manifest.heads, manifest.layers)
        floor = Floor(sizes).measure(ceiling, seconds / 2)
        known.append(ceiling)
        self.floors[name].append(floor)
        print(
            f"{name} ceiling: {ceiling.cpu_ms_per_text:.3f} ms of CPU a text, {ceiling.budget} tokens a batch; "
            f"floor: {floor:.3f}",
            flush=True,
        )
        self._write(
            {
                "workload": name,
                "ceiling_ms_per_text": ceiling.cpu_ms_per_text,
                "ceiling_batch_tokens": ceiling.budget,
                "ceiling_batch_ms": ceiling.batch_ms,
                "floor_ms_per_text": floor,
            }
        )

    def _row(self, name: str, label: str) -> list[float | str | None]:
        results = self.results[label, name]
        cpu = self._cpu(name, label)
        peaks = [result.peak_rss_mib for result in results if result.peak_rss_mib is not None]
        rates = [result.texts_per_second for result in results]
        ceilings = [ceiling.cpu_ms_per_text for ceiling in self.ceilings[name]]
        return [
            name,
            label,
            median_of(rates),
            *(median_of(getattr(result, key) for result in results) for key in ("p50_ms", "p95_ms", "p99_ms")),
            median_of(cpu),
            median_of(rates) * median_of(ceilings) / 1000,
            ratio_of_medians(ceilings, cpu),
            ratio_of_medians(ceilings, self.floors[name]),
            max(peaks, default=None),
            f"{min(result.lowest_cosine for result in results):.6f}",
        ]

    def _ratio(self, name: str, ours: str, peer: str) -> float:
        def rates(label: str) -> list[float]:
            return [result.texts_per_second for result in self.results[label, name]]

        return ratio_of_medians(rates(ours), rates(peer))

    def _cpu(self, name: str, label: str) -> list[float]:
        results = self.results[label, name]
        return [result.cpu_ms_per_text for result in results if result.cpu_ms_per_text is not None]

    def _cpu_ratio(self, name: str, ours: str, peer: str) -> float:
        return ratio_of_medians(self._cpu(name, peer), self._cpu(name, ours))

    def _write(self, line: dict[str, object]) -> None:
        if self.options.out is not None:
            with self.options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | self.about) + "\n")
