"""Images in a request: checked where they are data, reported where they are links."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from edwin.errors import InvalidRequest, shorten

MAX_IMAGES = 8
MAX_IMAGE_BYTES = 10_000_000

# How a file of each type that is taken begins; RIFF is WebP's container.
_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


class ImageCheck:
    """Looks at the images of one request, in their order.

    Attributes:
        links: Paths of the URLs that the provider would have to fetch.

    """

    def __init__(self) -> None:
        self.links: list[str] = []
        self._count = 0

    def turn(self) -> None:
        """Begin a new turn: what was answered does not count any more."""
        self._count = 0

    def part(self, part: Mapping[str, Any], path: str) -> None:
        """Check the image *part* that stands at *path*.

        Raises:
            InvalidRequest: If it is no image that Edwin takes, or one too many.

        """
        url, param = part["image_url"]["url"], f"{path}.image_url.url"
        self._count += 1
        if self._count > MAX_IMAGES:
            raise _refused(param, f"a turn holds at most {MAX_IMAGES} images")
        if url[:8].lower().startswith(("http://", "https://")):
            self.links.append(param)
        elif url[:5].lower() == "data:":
            _check_data(url, param)
        else:
            raise _refused(param, "an image is a data: URL, or an http(s) one")


def _check_data(url: str, param: str) -> None:
    head, _, data = url.partition(",")
    kind, *options = head[5:].lower().split(";")
    if kind not in _MAGIC:
        kinds = ", ".join(_MAGIC)
        raise _refused(param, f"{shorten(kind)!r} is not taken; send one of {kinds}")
    if "base64" not in options:
        raise _refused(param, "image data is base64: data:<type>;base64,<data>")
    if len(data) * 3 // 4 > MAX_IMAGE_BYTES + 2:
        raise _refused(param, f"an image has at most {MAX_IMAGE_BYTES} bytes")
    try:
        image = binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _refused(param, "the image's data is not base64") from None
    if not image.startswith(_MAGIC[kind]):
        raise _refused(param, f"the image's data is not {kind}")


def _refused(param: str, text: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid image: {text}.", param=param, code="invalid_image_url"
    )
