"""Time of importing the package and of printing the help, relative to importing torch.

python benchmarks/import_time.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from measure import Row, Table, in_turn, middle, spread


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser()
    words.add_argument("--rounds", type=int, default=7)
    given = words.parse_args()
    command = Path(sys.executable).parent / "neuroxai"

    def run(*arguments: object) -> None:
        subprocess.run([str(a) for a in arguments], check=True, capture_output=True)

    taken = in_turn(
        {
            "torch": lambda: run(sys.executable, "-c", "import torch"),
            "neuroxai": lambda: run(sys.executable, "-c", "import neuroxai, torch"),
            "help": lambda: run(command, "--help"),
        },
        given.rounds,
    )
    table = Table("import_time")
    torch_alone = middle(taken["torch"])
    table.add(Row("import neuroxai and torch", "import torch plus 0.15 s",
                  middle(taken["neuroxai"]), torch_alone + 0.15, bar=1.0,
                  detail=spread(taken["neuroxai"])))  # fmt: skip
    table.add(Row("neuroxai --help", "import torch", middle(taken["help"]), torch_alone, bar=0.7,
                  detail=spread(taken["help"])))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
