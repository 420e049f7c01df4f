"""Distillery distils image datasets and rebuilds the tables of the papers behind it."""

__version__ = "0.1.0"
