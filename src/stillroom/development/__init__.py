"""The development server: `supervisor` owns the database and the `worker` that serves."""
