"""Modules that check options are importable without torch, which takes seconds to import."""

from __future__ import annotations

import subprocess
import sys

LIGHT = (
    "core.errors",
    "core.vocabulary",
    "core.progress",
    "core.box",
    "core.workers",
    "core.engine.allocator",
    "core.engine.memory",
    "core.engine.settings",
)


def test_light_modules_do_not_import_torch() -> None:
    imports = "; ".join(f"import neuroxai.{name}" for name in LIGHT)
    check = "import sys; assert 'torch' not in sys.modules"
    code = f"{imports}; neuroxai.core.engine.memory.parse_size('4GB'); {check}"
    subprocess.run([sys.executable, "-c", code], check=True)


UNIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")


def test_the_core_needs_no_module_that_windows_lacks() -> None:
    """A module set to None raises ModuleNotFoundError when it is imported."""
    code = (
        "import pkgutil, sys, importlib, torch, numpy\n"
        f"sys.modules.update(dict.fromkeys({UNIX_ONLY}))\n"
        "import neuroxai.core as core\n"
        "for each in pkgutil.walk_packages(core.__path__, 'neuroxai.core.'):\n"
        "    importlib.import_module(each.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
