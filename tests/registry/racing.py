"""`python -m tests.registry.racing TRACKING_URI FOLDER...`: register records at an MLflow of one's own, as a job does.

Prints a line for each; run several at once, or kill it, to see what is left.
"""

import sys
from pathlib import Path

from corrector.registry import register

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    for folder in sys.argv[2:]:
        version = register(Path(folder), tracking_uri=sys.argv[1], root=Path("/nonexistent"))
        print(version.name, version.version, version.sha256, flush=True)
