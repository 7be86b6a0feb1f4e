"""An application that is served in processes of its own: in production, and for a developer."""
