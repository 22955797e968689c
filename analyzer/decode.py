"""From a record's bytes to a submitted prompt, whatever the bytes are."""

from __future__ import annotations

import re

import msgspec

from analyzer.errors import Rejection
from schemas.prompts import PromptSubmitted, RejectionCode

__all__ = ["MAX_RECORD_BYTES", "decode_prompt"]

MAX_RECORD_BYTES = 2**20
"""Records above are not parsed. 20,000 characters (the longest prompt) with a context as long are
240 KB of JSON at most, every character escaped; a higher bound only makes parsing bad records cost
more. The topic takes 4 MiB, so that what lies between is rejected here, with a reason."""

_BOM = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_decoder = msgspec.json.Decoder(PromptSubmitted)


def decode_prompt(value: bytes | None, *, max_bytes: int = MAX_RECORD_BYTES) -> PromptSubmitted:
    """A record's value as a prompt.

    Fields that are not known are ignored, and so is a byte order mark (RFC 8259, section 8.1).

    Args:
        value: the record's value; None for a tombstone.
        max_bytes: larger values are rejected without parsing them.

    Raises:
        Rejection: ``empty``, ``record_too_large``, ``invalid_utf8`` (also a lone surrogate in an
            escape: such a text has no UTF-8), ``not_json`` or ``wrong_shape``.
    """
    if not value:
        what = "has no value" if value is None else "is 0 bytes long"
        raise Rejection(RejectionCode.EMPTY, f"the record {what}; send a JSON object")
    if len(value) > max_bytes:
        raise Rejection(
            RejectionCode.RECORD_TOO_LARGE, f"{len(value)} bytes > limit of {max_bytes} bytes"
        )
    try:
        # The parser checks only what it keeps; bytes in a field that it skips must be text, too.
        value.decode()
    except UnicodeDecodeError as error:
        raise Rejection(
            RejectionCode.INVALID_UTF8, f"invalid UTF-8 at byte {error.start}: {error.reason}"
        ) from error
    try:
        return _decoder.decode(value.removeprefix(_BOM))
    except msgspec.ValidationError as error:
        raise Rejection(RejectionCode.WRONG_SHAPE, str(error)) from error
    except msgspec.DecodeError as error:
        if "surrogate" in str(error) or _LONE_SURROGATE.search(value):
            reason = f"an escape is half of a surrogate pair ({error})"
            raise Rejection(RejectionCode.INVALID_UTF8, reason) from error
        raise Rejection(RejectionCode.NOT_JSON, str(error)) from error
    except RecursionError as error:
        raise Rejection(RejectionCode.WRONG_SHAPE, "JSON is nested too deeply") from error
