"""CLIENT: a gateway as another program uses it.

``http`` speaks to it, ``faults`` says what comes back when that goes wrong::

    async with HttpClient("http://127.0.0.1:18789", token) as client:
        for run in (await client.list_runs(state="running"))["data"]:
            await client.cancel_run(run["id"])
"""

from edwin.client.faults import ClientError
from edwin.client.http import HttpClient

__all__ = ["ClientError", "HttpClient"]
