"""The laws of the design, each with its fault, against a real server process on both drivers."""
