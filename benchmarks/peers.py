"""Virtual environment with the packages for comparison that are not development dependencies.

python benchmarks/peers.py && .peers/bin/python benchmarks/grad_cam.py

It includes the packages of the current environment, so that all packages use the same torch, and
adds grad-cam and medcam with their dependencies, without replacing any package.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".peers"
PACKAGES = ("grad-cam", "medcam", "ttach", "opencv-python-headless", "torchvision")


def main() -> None:
    """Create the environment and report packages that could not be installed."""
    venv.create(FOLDER, with_pip=True, clear=True)
    python = FOLDER / "bin" / "python"
    query = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    site = Path(subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip())
    # Added as a site directory, so that editable installs are found too.
    current = sysconfig.get_paths()["purelib"]
    (site / "current.pth").write_text(f"import site; site.addsitedir({current!r})\n")
    for name in PACKAGES:
        pip = [str(python), "-m", "pip", "install", "-q", "--no-deps", name]
        if subprocess.run(pip, check=False).returncode:
            print(f"NOT INSTALLED: {name}", file=sys.stderr)
    print(f"created {FOLDER}")


if __name__ == "__main__":
    main()
