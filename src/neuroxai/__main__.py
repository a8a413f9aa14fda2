"""``python -m neuroxai``."""

from neuroxai.cli import main

main()
