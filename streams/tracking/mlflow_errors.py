"""MLflow's errors, and those of what is below it, as the two kinds that matter to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.rest_store import RestStore
from sqlalchemy.exc import SQLAlchemyError

from streams.errors import SinkMissingError, SinkRefusedError, SinkUnavailableError, StreamsError

__all__ = ["translated"]

_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
}
"""Answers that are about what was sent, not about the server."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of a block into :class:`SinkUnavailableError` or :class:`SinkRefusedError`."""
    try:
        yield
    except StreamsError:
        raise
    except MlflowException as error:
        text = _short(error)
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SinkMissingError(text) from error
        if error.error_code in _REFUSALS:
            raise SinkRefusedError(text) from error
        raise SinkUnavailableError(text) from error
    except NotImplementedError as error:
        # It remembers a server that did not say its version as one that is too old.
        RestStore._get_server_version.cache_clear()  # noqa: SLF001 - nothing else asks again
        raise SinkUnavailableError(_short(error)) from error
    except (SQLAlchemyError, OSError) as error:
        raise SinkUnavailableError(_short(error)) from error
    except Exception as error:  # MLflow trips over what it was given: that must not end the tracker
        raise SinkRefusedError(f"{type(error).__name__}: {_short(error)}") from error


def _short(error: BaseException) -> str:
    """In one line."""
    return " ".join(str(error.__cause__ or error).split())[:500] or repr(error)
