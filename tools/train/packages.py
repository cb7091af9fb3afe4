"""Files inside installed packages."""

import importlib.util
import pathlib


def package_file(package, pattern):
    """A file inside an installed package, which is not imported."""
    return next(pathlib.Path(importlib.util.find_spec(package).origin).parent.glob(pattern))
