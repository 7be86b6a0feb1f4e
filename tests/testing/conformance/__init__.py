"""The same outcome on a plain connection, on a clone and in the sandbox: a test runs on each."""
