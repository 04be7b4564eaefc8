"""The room of the models' own APIs: each file that has a provider is an ``api``.

``base`` says what a provider is and finds it; ``gateway`` makes, starts and stops
those of the configuration, ``executor`` calls them.
"""
