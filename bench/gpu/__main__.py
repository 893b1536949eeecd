"""`python -m bench.gpu`: the sections one after the other, all figures as JSON, the short table last."""

import argparse
import json
import logging
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.gpu.accuracy import measure_accuracy
from bench.gpu.memory import measure_memory
from bench.gpu.options import DRY, GPU, SECTIONS, Scale, parse
from bench.gpu.served import measure_served
from bench.gpu.speed import measure_speed
from bench.gpu.subject import Subject, random_subject, real_subject
from bench.gpu.summary import goals, write_tables
from bench.machine import describe
from berth.artifact import Precision
from berth.backends.cuda.devices import require_gpus
from berth.errors import DeviceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections; gives the exit status, 1 where one failed or, on a GPU, a goal was not reached."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    logging.basicConfig(level=logging.WARNING)
    torch.set_float32_matmul_precision("highest")
    try:
        about = describe() | {"command": " ".join(["python -m bench.gpu", *given])} | _device(dry=options.dry_run)
    except DeviceError as error:
        print(f"bench: {error}; --dry-run needs no GPU", file=sys.stderr)
        return 1
    scale = DRY if options.dry_run else GPU
    if options.seconds:
        scale = replace(scale, seconds=options.seconds)
    report: dict[str, Any] = {"about": about, "failed": {}}
    with tempfile.TemporaryDirectory(prefix="berth-gpu-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _run(options, scale, folder, report)
    print()
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", end="\n\n")
    print(write_tables(report))
    if options.dry_run:
        print("\na dry run: that there are figures says that it runs, and nothing else")
    for section, trace in report["failed"].items():
        print(f"FAILED {section}: {trace.splitlines()[-1]}")
    reached = options.dry_run or all(goal.reached for goal in goals(report))
    return 0 if reached and not report["failed"] else 1


def _run(options: argparse.Namespace, scale: Scale, folder: Path, report: dict[str, Any]) -> None:
    """Run the sections that are wanted; one that fails leaves the others, and what was found is written each time."""
    device = "cpu" if options.dry_run else "cuda"
    shape = "tiny" if options.dry_run else "large" if options.large else "base"
    measured = random_subject(shape, folder, device)
    precision: Precision = options.precision
    sections: dict[str, Callable[[], object]] = {
        "accuracy": lambda: [found.as_json() for found in _accuracies(options, measured, folder, scale)],
        "speed": lambda: measure_speed(measured, precision, scale),
        "served": lambda: measure_served(measured, precision, scale),
        "memory": lambda: measure_memory(measured, precision, scale).as_json(),
    }
    for name in SECTIONS:
        if options.only is None or name in options.only:
            print(f"--- {name}", flush=True)
            try:
                report[name] = sections[name]()
            except Exception:
                report["failed"][name] = traceback.format_exc()
                traceback.print_exc()
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def _accuracies(options: argparse.Namespace, measured: Subject, folder: Path, scale: Scale) -> Any:
    subjects: list[Subject | None] = [measured]
    if not options.dry_run:
        subjects.append(random_subject("base" if options.large else "large", folder, measured.device))
        subjects.append(real_subject(options.checkpoint, folder, measured.device))
    precisions: list[Precision] = ["fp32"] if options.dry_run else ["fp32", "fp16"]
    for subject in subjects:
        for precision in precisions if subject else ():
            assert subject is not None, "or there would be no precisions"
            found = measure_accuracy(subject, precision, scale)
            print(f"{subject.name} {precision}: lowest cosine {found.lowest_cosine:.7f}, {found.worst}", flush=True)
            yield found


def _device(*, dry: bool) -> dict[str, str]:
    about = {"torch": torch.__version__, "transformers": transformers.__version__}
    if dry:
        return about | {"gpu": "none: a dry run"}
    driver = require_gpus([0])
    return about | {"gpu": driver.gpus[0], "driver's CUDA": ".".join(map(str, driver.cuda))}


if __name__ == "__main__":
    sys.exit(main())
