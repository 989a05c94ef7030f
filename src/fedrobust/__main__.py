"""Run the command line as ``python -m fedrobust``."""

import os
import sys

# Python puts the working directory before everything that is installed, and a stranger's folder may
# hold a torch.py. The modules that a user's own config names are still found there.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from fedrobust.cli import main

main()
