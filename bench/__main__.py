"""`python -m bench`: start Berth, or take a server that runs, load it, check its answers, print a table."""

import signal
import sys
from collections.abc import Sequence

from bench.capacity import capacity
from bench.comparison import Comparison
from bench.fairness import fairness
from bench.machine import describe
from bench.memory import memory
from bench.model import find_model
from bench.options import parse
from bench.overload import overload
from bench.pair import pair
from bench.rig import Rig
from bench.scaling import scaling


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status, 1 where an answer was wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    about = describe() | {"command": " ".join(["python -m bench", *given])}
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", end="\n\n", flush=True)
    rig = Rig(find_model(options.model, options.precision), options)
    match options.command:
        case "overload":
            sound = overload(rig, options, about)
        case "fairness":
            sound = fairness(rig, options, about)
        case "scaling":
            sound = scaling(rig, options, about)
        case "capacity":
            sound = capacity(rig, options, about)
        case "memory":
            sound = memory(rig, options, about)
        case "pair":
            sound = pair(rig, options, about)
        case _:
            sound = Comparison(rig, options, about).run()
    return 0 if sound else 1


if __name__ == "__main__":
    # so that the servers it has started, of which one may be stopped, end with it
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
