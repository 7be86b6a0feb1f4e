"""The plugin, in whole projects that are tested with it."""
