"""``python -m fedrobust``."""

from fedrobust.cli import main

main()
