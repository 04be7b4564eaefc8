"""Sessions: keys, reconciliation, and the registry that owns what is live."""

from edwin.sessions.registry import SessionRegistry

__all__ = ["SessionRegistry"]
