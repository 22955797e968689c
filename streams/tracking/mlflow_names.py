"""What things are called in MLflow."""

from __future__ import annotations

import re
from hashlib import blake2b

__all__ = ["model_name"]


def model_name(service: str) -> str:
    """The registered model of a service: `driftgate-SERVICE`, in letters that MLflow takes."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", service)[:100]
    if plain == service:
        return f"driftgate-{service}"
    return f"driftgate-{plain}-{blake2b(service.encode(), digest_size=4).hexdigest()}"
