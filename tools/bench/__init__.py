"""What Edwin costs over a bare Tornado relay: ``python -m tools.bench``.

The method is in ``docs/performance.md``.
"""
