"""The harness of training for several folders, one after another. Run in a model's environment."""

import sys
from pathlib import Path

from konveyer.development.harness import main

if __name__ == "__main__":
    for folder in sys.argv[1:]:
        main(Path(folder))
