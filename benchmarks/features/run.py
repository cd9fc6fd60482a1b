"""`make bench-features`: the feature engine against its peers, one JSON object a line.

Progress goes to stderr. This process loads no library and stays small: the system counts the
memory of a process that starts another one into the other one's peak.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.features.benches import AGAINST_PEERS, NAMES
from benchmarks.features.suite import Options, ProcessFailed, Suite
from benchmarks.options import kept_or_temporary


def main() -> None:
    peers = sorted({peer.name for bench in AGAINST_PEERS for peer in bench.peers})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="BENCH")
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers, metavar="PEER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fifty times less data")
    parser.add_argument("--folder", type=Path, help="keep data and workspaces here, and use them")
    parser.add_argument("--here", action="store_true", help="run peers in our own environment")
    parsed = parser.parse_args()
    with kept_or_temporary(parsed.folder) as folder:
        options = Options(
            folder=folder,
            only=frozenset(parsed.only),
            peers=frozenset(parsed.peers),
            rounds=parsed.rounds,
            quick=parsed.quick,
            here=parsed.here,
        )
        try:
            for line in Suite(options).lines():
                print(json.dumps(line), flush=True)
        except ProcessFailed as failed:
            sys.exit(str(failed))


if __name__ == "__main__":
    main()
