"""numba, which takes no settings from the working directory.

It would read ``.numba_config.yaml`` there, which may be anybody's, when it is imported and whenever
it compiles. That file can name a folder of pickles to load, classes to import and a file to write.
Settings in the environment (``NUMBA_...``) hold as ever, and a numba that was imported before stays
as it is.
"""

import os
import sys
import warnings
from typing import Any

_ABSENT = object()

if "numba" in sys.modules:
    import numba
else:
    # The one way to have it not read at the import: numba does without where there is no PyYAML.
    modules: dict[str, Any] = sys.modules
    before = modules.get("yaml", _ABSENT)
    modules["yaml"] = None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A Numba config file is found")
            import numba
    finally:
        del modules["yaml"]
        if before is not _ABSENT:
            modules["yaml"] = before
    numba.core.config._config_fname = os.devnull  # which is no file, so that it is not read later

__all__ = ["numba"]
