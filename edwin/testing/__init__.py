"""What tests of Edwin, and of programs that embed it, are made with.

:class:`ScriptedUpstream` plays a model's provider over real HTTP::

    async with ScriptedUpstream() as upstream:
        upstream.reply("Hello there")
        upstream.fail(429, {"error": {"message": "slow down"}})
        ...  # a provider's baseUrl is upstream.url
        assert upstream.requests[0].body["model"] == "m"

:class:`LocalGateway` is a whole gateway on a free port, with such a provider::

    async with LocalGateway(empty_folder) as served:
        served.upstream.reply("Hello there")
        ...  # POST served.url + "/v1/chat/completions", with the token TOKEN
"""

from edwin.testing.gateway import TOKEN, LocalGateway
from edwin.testing.reply import BEFORE_HEAD, USAGE, Reply, words
from edwin.testing.upstream import Request, ScriptedUpstream

__all__ = [
    "BEFORE_HEAD",
    "TOKEN",
    "USAGE",
    "LocalGateway",
    "Reply",
    "Request",
    "ScriptedUpstream",
    "words",
]
