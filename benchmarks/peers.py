"""An environment for the peers that are not among the development tools.

python benchmarks/peers.py && .peers/bin/python benchmarks/grad_cam.py

It sees the packages of the environment it is made from, so both sides run on the same torch, and
adds grad-cam and medcam, with what they need, without exchanging anything.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PLACE = Path(__file__).parents[1] / ".peers"
WANTED = ("grad-cam", "medcam", "ttach", "opencv-python-headless", "torchvision")


def main() -> None:
    """Make the environment; say what could not be had."""
    venv.create(PLACE, with_pip=True, clear=True)
    python = PLACE / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    home = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    # A folder of packages added as a site, so that what is installed for editing is found too.
    here = sysconfig.get_paths()["purelib"]
    (home / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for name in WANTED:
        pip = [str(python), "-m", "pip", "install", "-q", "--no-deps", name]
        if subprocess.run(pip, check=False).returncode:
            print(f"NOT INSTALLED: {name}", file=sys.stderr)
    print(f"Made: {PLACE}")


if __name__ == "__main__":
    main()
