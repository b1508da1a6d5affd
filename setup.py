"""Build entry point. The metadata and the packages are declared in pyproject.toml."""

from setuptools import setup

setup()
