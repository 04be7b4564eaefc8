"""Requests that are almost right: does the gateway ever break, hang or grow?

``python -m tools.fuzz --help`` says what there is.
"""
