"""What a client may rely on, whatever fails below the application."""

from stillroom.testing.laws import Request, ServiceLaws


class TestLaws(ServiceLaws):
    """Ask the service as its clients do."""

    def write(self, number: int) -> Request:
        """Create a user."""
        user = {"email": f"user{number}@example.com", "full_name": "Ada Lovelace"}
        return Request("POST", "/api/user/create-user", json=user)

    def read(self) -> Request:
        """Read all users."""
        return Request("GET", "/api/user/get-users")
