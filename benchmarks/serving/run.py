"""`make bench-serving`: predictions against other model servers, one JSON object a line.

Progress goes to stderr.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.options import kept_or_temporary
from benchmarks.serving.load import LoadFailed
from benchmarks.serving.peers import SERVED_PEERS
from benchmarks.serving.server import ServerFailed
from benchmarks.serving.suite import NAMES, Options, Suite


def main() -> None:
    peers = [peer.name for peer in SERVED_PEERS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="BENCH")
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, metavar="PEER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--folder", type=Path, help="keep data and workspaces here, and use them")
    parsed = parser.parse_args()
    with kept_or_temporary(parsed.folder) as folder:
        options = Options(
            folder=folder,
            only=frozenset(parsed.only),
            peers=frozenset(parsed.peers),
            rounds=parsed.rounds,
            seconds=parsed.seconds,
        )
        try:
            for line in Suite(options).lines():
                print(json.dumps(line), flush=True)
        except (LoadFailed, ServerFailed) as failed:
            sys.exit(str(failed))


if __name__ == "__main__":
    main()
