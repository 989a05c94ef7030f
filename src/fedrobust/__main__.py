"""``python -m fedrobust``."""

import os
import sys

# Python puts the working directory before everything that is installed, and a stranger's folder may
# hold a torch.py. What a user's own config names is found there all the same.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from fedrobust.cli import main

main()
