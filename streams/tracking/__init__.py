"""What MLflow gets: one run a rollout, its metrics, a trace a prompt, feedback, model versions."""
