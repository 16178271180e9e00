"""ipykernel, as Jupyter starts it."""
