"""Fixtures of these tests."""

from tests.proxy.conftest import gate

__all__ = ["gate"]
