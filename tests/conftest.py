"""Fixtures for all tests."""

from hypothesis import settings

from tests.trained import trained

# How long an example takes is the machine's load, not the code's fault.
settings.register_profile("featherweight", deadline=None)
settings.load_profile("featherweight")

__all__ = ["trained"]
