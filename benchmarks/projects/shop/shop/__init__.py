"""A bookshop: a project that knows nothing of Stillroom."""
