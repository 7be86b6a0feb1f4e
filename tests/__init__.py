"""The tests of the library; they mirror its modules."""
