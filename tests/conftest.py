"""Fixtures for all tests."""

from tests.trained import trained

__all__ = ["trained"]
