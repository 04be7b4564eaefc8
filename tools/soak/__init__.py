"""Load that goes on: does the gateway grow, does it lose or repeat anything?

``python -m tools.soak --help`` says what there is.
"""
