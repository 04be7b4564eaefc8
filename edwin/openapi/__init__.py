"""The HTTP API as an OpenAPI 3.1 document, made from the shipped schemas; pure.

Served at ``/openapi.json``.  What a route takes and gives stands in
:mod:`edwin.openapi.table`, once; tests hold it against the URL table and against what
a gateway answers.
"""

from edwin.openapi.document import encoded, openapi
from edwin.openapi.table import ROUTES, Route

__all__ = ["ROUTES", "Route", "encoded", "openapi"]
