"""The command line."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.dialects import DIALECTS
from bench.peers.environments import PEERS
from bench.workloads import SHAPES

Number = TypeVar("Number", int, float)

COMMANDS = {
    "run": "the workloads, beside the ceiling, the floor and peers",
    "overload": "many times more requests than can be answered",
    "fairness": "a short request among bulk ones",
    "scaling": "the encoder alone on one core and on two",
    "memory": "the server's memory over a long mixed run",
    "capacity": "how many texts one process passes on, with an encoder that only sleeps",
    "pair": "this tree's Berth beside another checkout's",
}
WITH_PEERS = ("run", "fairness")
ON_CORES = ("run", "fairness", "overload", "memory")
PAIR_ROUNDS = 7
EPILOG = "What follows a lone -- is handed to the Berth that is started: … -- --max-batch-tokens 512"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with a line where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=EPILOG)
    parser.description = "Measure Berth, or any server of embeddings, on this machine."
    parser.add_argument("command", nargs="?", default="run", choices=list(COMMANDS), help=_commands())
    parser.add_argument("--model", help="model to serve, as in `berth serve`; the default model if left out")
    parser.add_argument("--precision", choices=["fp32", "int8"], default="fp32", help="of a model that is exported")
    parser.add_argument("--base", metavar="URL", help="measure a server that runs already, in place of Berth")
    parser.add_argument("--api", choices=sorted(DIALECTS), default="openai", help="how --base is asked")
    parser.add_argument("--model-name", help="what --base wants to be asked for as the model")
    parser.add_argument("--label", help="what to call --base in the table")
    parser.add_argument("--pid", type=int, help="process of --base, to know its CPU time and memory")
    parser.add_argument("--peer", action="append", default=[], help=f"compare with a URL, or with {', '.join(PEERS)}")
    parser.add_argument("--peer-api", choices=sorted(DIALECTS), default="openai", help="how a peer's URL is asked")
    parser.add_argument("--peer-model-name", help="what a peer's URL wants to be asked for as the model")
    parser.add_argument("--workloads", type=_names, default=list(SHAPES), help="of w1,w2,w3,w4; all by default")
    parser.add_argument("--data", type=Path, help="folder of workloads.json and ref_*.npy in place of our own texts")
    parser.add_argument("--rounds", type=_positive(int), help="rounds, in which the servers take turns: 1, pair: 7")
    parser.add_argument("--seconds", type=_positive(float), default=15, help="length of the window that counts")
    parser.add_argument("--warmup", type=float, help="seconds before it: 3, memory: 60")
    parser.add_argument("--minutes", type=_positive(float), default=20, help="memory: length of the run")
    parser.add_argument("--no-ceiling", action="store_true", help="leave out the encoder alone and the products alone")
    parser.add_argument("--min-cos", type=float, default=0.999, help="a cosine to the reference up to this is wrong")
    parser.add_argument("--factor", type=_positive(float), default=10, help="overload: how many times the peak rate")
    parser.add_argument("--cores", type=_positive(int), default=1, help="of the server, with as many threads: 1")
    parser.add_argument("--shares", type=_shares, default=[], help="fairness: values of --bulk-share to compare")
    parser.add_argument("--threads", type=_counts, default=[8, 16, 32, 64], help="capacity: encoder threads to try")
    parser.add_argument("--other", type=_folder, help="pair: folder of the other checkout")
    parser.add_argument("--other-python", type=Path, help="pair: its interpreter, in place of its .venv/bin/python")
    parser.add_argument("--picture", type=_writable, help="run, fairness --shares: SVG file for a picture")
    parser.add_argument("--out", type=_writable, help="file to which a line of JSON is added for each result")
    own, flags = _split(arguments)
    options = parser.parse_args(own)
    options.flags = flags
    _fill_in(options)
    _check(parser, options)
    return options


def _fill_in(options: argparse.Namespace) -> None:
    """Set what depends on the command."""
    if options.rounds is None:
        options.rounds = PAIR_ROUNDS if options.command == "pair" else 1
    if options.warmup is None:
        options.warmup = 60.0 if options.command == "memory" else 3.0
    if options.command == "memory":
        options.seconds = options.minutes * 60


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a line where options do not go together."""
    command, own = options.command, options.base is None
    mistakes = {
        "flags after -- are for a Berth that is started, and --base names one that runs": options.flags and not own,
        "memory: --base wants its --pid": command == "memory" and not own and options.pid is None,
        "pair: it wants --other and starts its own servers, so no --base": (
            command == "pair" and (options.other is None or not own)
        ),
        "capacity: it starts its own servers, and takes no --base": command == "capacity" and not own,
        f"--peer is for {' and '.join(WITH_PEERS)}": options.peer and command not in WITH_PEERS,
        "--shares is for fairness, and takes no --peer and no --base": (
            options.shares and (command != "fairness" or options.peer or not own)
        ),
        f"--cores is for {', '.join(ON_CORES)}": options.cores > 1 and command not in ON_CORES,
        "--picture is for run and for fairness --shares": options.picture and command != "run" and not options.shares,
    }
    for peer in options.peer:
        known = "://" in peer or peer in PEERS
        mistakes[f"--peer: {peer!r} is neither a URL nor one of {', '.join(PEERS)}"] = not known
    for message, is_so in mistakes.items():
        if is_so:
            parser.error(message)


def _commands() -> str:
    return "; ".join(f"{name}: {what}" for name, what in COMMANDS.items())


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    given = list(arguments)
    place = given.index("--") if "--" in given else len(given)
    return given[:place], given[place + 1 :]


def _names(value: str) -> list[str]:
    names = [name.strip().lower() for name in value.split(",")]
    for name in names:
        if name not in SHAPES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SHAPES)}")
    return names


def _shares(value: str) -> list[float]:
    return [float(part) for part in value.split(",")]  # Berth itself says which it takes


def _counts(value: str) -> list[int]:
    return [_positive(int)(part) for part in value.split(",")]


def _folder(value: str) -> Path:
    path = Path(value).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    return path


def _writable(value: str) -> Path:
    """Fail now where the folder is missing, not after the measurements."""
    path = Path(value)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _positive(kind: type[Number]) -> Callable[[str], Number]:
    def number(value: str) -> Number:
        result = kind(value)
        if not result > 0:
            raise argparse.ArgumentTypeError(f"{value} is not above 0")
        return result

    number.__name__ = kind.__name__
    return number
