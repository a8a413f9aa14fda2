"""Time of importing the package and of printing the help, relative to importing torch.

python benchmarks/import_time.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from measure import Row, Table, interleave, median, spread


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    command = Path(sys.executable).parent / "neuroxai"

    def run(*arguments: object) -> None:
        subprocess.run([str(a) for a in arguments], check=True, capture_output=True)

    times = interleave(
        {
            "torch": lambda: run(sys.executable, "-c", "import torch"),
            "neuroxai": lambda: run(sys.executable, "-c", "import neuroxai, torch"),
            "help": lambda: run(command, "--help"),
        },
        arguments.rounds,
    )
    table = Table("import_time")
    torch_alone = median(times["torch"])
    table.add(Row("import neuroxai and torch", "import torch plus 0.15 s",
                  median(times["neuroxai"]), torch_alone + 0.15, bar=1.0,
                  detail=spread(times["neuroxai"])))  # fmt: skip
    table.add(Row("neuroxai --help", "import torch", median(times["help"]), torch_alone, bar=0.7,
                  detail=spread(times["help"])))  # fmt: skip
    table.write()


if __name__ == "__main__":
    main()
