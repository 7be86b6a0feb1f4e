"""The tests of `stillroom serve`, with real processes."""
