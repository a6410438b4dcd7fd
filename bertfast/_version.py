"""The version, once: pyproject.toml reads it from here and the compiled extension is checked against it."""

__version__ = "0.4.0"
