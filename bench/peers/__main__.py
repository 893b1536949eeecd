"""`python -m bench.peers setup NAME …`: make the environments of peers; `python -m bench` makes what is missing too."""

import sys

from bench.peers.environments import PEERS, SetupError, setup

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["setup", *names] if names and set(names) <= PEERS.keys():
            for name in names:
                try:
                    setup(PEERS[name])
                except SetupError as error:
                    raise SystemExit(f"{name}: {error}") from error
        case _:
            raise SystemExit(f"usage: python -m bench.peers setup NAME …   ({', '.join(PEERS)})")
