"""What MLflow is told by its environment variables; it reads most of them when it is imported."""

from __future__ import annotations

__all__ = ["mlflow_environment"]


def mlflow_environment(timeout_s: int) -> dict[str, str]:
    """Variables for a process that writes to MLflow.

    Args:
        timeout_s: of a request, whole seconds.
    """
    return {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        # Its own default tries for minutes, without a word. We try again, and say so.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": str(timeout_s),
        # Nothing is sent to its makers.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # Its log lines go where ours go.
        "MLFLOW_CONFIGURE_LOGGING": "false",
        # It looks for git and warns where there is none.
        "GIT_PYTHON_REFRESH": "quiet",
    }
