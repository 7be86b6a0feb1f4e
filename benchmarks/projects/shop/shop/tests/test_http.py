"""The shop as its customers see it."""

from typing import Any

import pytest
from fastapi.testclient import TestClient


def add(client: TestClient, path: str, **body: Any) -> Any:
    """Add something; return what was answered."""
    response = client.post(path, json=body)
    assert response.status_code == 201, response.text
    return response.json()


@pytest.fixture
def author(client: TestClient) -> int:
    """Give the number of an author."""
    return int(add(client, "/authors", name="Jane Austen")["id"])


@pytest.fixture
def book(client: TestClient, author: int) -> int:
    """Give the number of a book of which there are three."""
    body = {"title": "Emma", "price": "9.90", "stock": 3, "author_id": author}
    return int(add(client, "/books", **body)["id"])


@pytest.fixture
def customer(client: TestClient) -> int:
    """Give the number of a customer."""
    return int(add(client, "/customers", email="ada@example.com")["id"])


def order(client: TestClient, customer: int, book: int, quantity: int) -> Any:
    """Order some of a book."""
    line = {"book_id": book, "quantity": quantity}
    return client.post("/orders", json={"customer_id": customer, "lines": [line]})


def stock(client: TestClient) -> int:
    """Return how many there are of the one book."""
    return int(client.get("/books").json()[0]["stock"])


def test_a_new_shop_has_no_books(client: TestClient) -> None:
    """Nothing is left of another test."""
    assert client.get("/books").json() == []


@pytest.mark.parametrize("name", ["Jane Austen", "Émile Zola", "李白", "O'Brien"])
def test_an_author_keeps_the_name(client: TestClient, name: str) -> None:
    """Whatever its letters are."""
    assert add(client, "/authors", name=name) == {"id": 1, "name": name}


def test_authors_are_listed_by_name(client: TestClient) -> None:
    """Not in the order in which they came."""
    for name in ("Zola", "Austen", "Mann"):
        add(client, "/authors", name=name)
    names = [found["name"] for found in client.get("/authors").json()]
    assert names == ["Austen", "Mann", "Zola"]


def test_an_author_is_added_once(client: TestClient, author: int) -> None:
    """The second one is refused, and the shop goes on."""
    assert client.post("/authors", json={"name": "Jane Austen"}).status_code == 409
    assert [found["id"] for found in client.get("/authors").json()] == [author]


def test_a_book_needs_an_author(client: TestClient) -> None:
    """A number that nobody has is refused."""
    body = {"title": "Emma", "price": "9.90", "author_id": 77}
    assert client.post("/books", json=body).status_code == 409


@pytest.mark.parametrize("price", ["0.00", "9.90", "1234.56"])
def test_a_price_is_exact(client: TestClient, author: int, price: str) -> None:
    """To the cent."""
    body = {"title": "Emma", "price": price, "author_id": author}
    assert add(client, "/books", **body)["price"] == price


def test_a_negative_stock_is_refused(client: TestClient, author: int) -> None:
    """By the table."""
    body = {"title": "Emma", "price": "1.00", "stock": -1, "author_id": author}
    assert client.post("/books", json=body).status_code == 409


@pytest.mark.parametrize(("name", "count"), [("Jane Austen", 1), ("Nobody", 0)])
def test_books_are_found_by_author(client: TestClient, book: int, name: str, count: int) -> None:
    """By the whole name."""
    assert len(client.get("/books", params={"author": name}).json()) == count, book


@pytest.mark.parametrize(("quantity", "count"), [(1, 1), (3, 0)])
def test_what_is_sold_out_is_not_in_stock(
    client: TestClient, book: int, customer: int, quantity: int, count: int
) -> None:
    """Once the last one is ordered."""
    order(client, customer, book, quantity)
    assert len(client.get("/books", params={"in_stock": True}).json()) == count


def test_a_book_can_be_deleted(client: TestClient, book: int) -> None:
    """It is gone."""
    assert client.delete(f"/books/{book}").status_code == 204
    assert client.get("/books").json() == []


def test_a_book_that_is_not_there_cannot_be_deleted(client: TestClient) -> None:
    """It is not found."""
    assert client.delete("/books/5").status_code == 404


def test_a_customer_is_added_once(client: TestClient, customer: int) -> None:
    """An address belongs to one."""
    assert client.post("/customers", json={"email": "ada@example.com"}).status_code == 409
    assert customer == 1


@pytest.mark.parametrize("quantity", [1, 2, 3])
def test_an_order_takes_books(client: TestClient, book: int, customer: int, quantity: int) -> None:
    """As many as are ordered."""
    found = order(client, customer, book, quantity).json()
    assert found["lines"] == [{"book_id": book, "quantity": quantity}]
    assert stock(client) == 3 - quantity


def test_more_than_there_are_is_refused(client: TestClient, book: int, customer: int) -> None:
    """Nothing of the order is left."""
    assert order(client, customer, book, 4).status_code == 409
    assert stock(client) == 3
    assert client.get("/orders/1").status_code == 404


@pytest.mark.parametrize("quantity", [0, -1])
def test_nothing_cannot_be_ordered(
    client: TestClient, book: int, customer: int, quantity: int
) -> None:
    """At least one."""
    assert order(client, customer, book, quantity).status_code == 422


def test_nobody_cannot_order(client: TestClient, book: int) -> None:
    """The customer is not found."""
    assert order(client, 9, book, 1).status_code == 404


def test_an_order_is_found_again(client: TestClient, book: int, customer: int) -> None:
    """By its number."""
    number = order(client, customer, book, 1).json()["id"]
    assert client.get(f"/orders/{number}").json()["status"] == "open"


def test_an_order_is_paid(client: TestClient, book: int, customer: int) -> None:
    """Its books stay away."""
    number = order(client, customer, book, 1).json()["id"]
    assert client.post(f"/orders/{number}/pay").json()["status"] == "paid"
    assert stock(client) == 2


def test_a_cancelled_order_gives_books_back(client: TestClient, book: int, customer: int) -> None:
    """All of them."""
    number = order(client, customer, book, 2).json()["id"]
    assert client.post(f"/orders/{number}/cancel").json()["status"] == "cancelled"
    assert stock(client) == 3


@pytest.mark.parametrize("first", ["pay", "cancel"])
@pytest.mark.parametrize("second", ["pay", "cancel"])
def test_an_order_ends_once(
    client: TestClient, book: int, customer: int, first: str, second: str
) -> None:
    """Whichever way."""
    number = order(client, customer, book, 1).json()["id"]
    assert client.post(f"/orders/{number}/{first}").status_code == 200
    assert client.post(f"/orders/{number}/{second}").status_code == 409
