"""Import numba without settings from the working directory.

numba would read ``.numba_config.yaml`` there when it is imported and whenever it compiles. The file
may be anybody's. It can name a folder of pickles to load, classes to import and a file to write.
Settings in the environment (``NUMBA_...``) still apply. A numba that was imported before stays as
it is.
"""

import os
import sys
import warnings
from typing import Any

_ABSENT = object()

if "numba" in sys.modules:
    import numba
else:
    # The only way to prevent this at the import: without PyYAML, numba does not read the file.
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
    numba.core.config._config_fname = os.devnull  # not a file, so nothing is read later

__all__ = ["numba"]
