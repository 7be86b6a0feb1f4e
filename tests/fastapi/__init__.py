"""The library in a FastAPI application, in process."""
