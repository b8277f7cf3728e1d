"""Requests of OpenAPI operations: what a model chooses stays within the operation."""

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.tools.openapi.document import DocumentError, read_operations, server_url
from quarterdeck.resources.tools.openapi.requests import ArgumentsError, make_request

DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "servers": [{"url": "https://api.example.com/v2/"}],
    "paths": {
        "/users/{id}/notes": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "listNotes",
                "parameters": [
                    {"name": "tag", "in": "query", "schema": {"type": "array"}},
                    {"name": "csv", "in": "query", "explode": False, "schema": {"type": "array"}},
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                ],
            },
            "post": {
                "operationId": "addNote",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Note"}}},
                },
            },
        }
    },
    "components": {
        "schemas": {
            "Note": {
                "type": "object",
                "required": ["text"],
                "properties": {"text": {"type": "string"}, "reply": {"$ref": "#/components/schemas/Note"}},
            }
        }
    },
}


def test_parameters_are_arguments_and_credentials_are_not() -> None:
    operation = read_operations(DOCUMENT, ("listNotes",))["listNotes"]
    assert sorted(operation.tool.input_schema["properties"]) == ["X-Trace", "csv", "id", "tag"]
    assert operation.tool.input_schema["required"] == ["id"]
    made = make_request(operation, {"id": "a b", "tag": ["x", "y"], "csv": [1, True], "X-Trace": "t"})
    assert made.target == "/users/a%20b/notes?tag=x&tag=y&csv=1%2Ctrue"
    assert (b"x-trace", b"t") in made.headers


def test_a_schema_within_itself_is_cut() -> None:
    schema = read_operations(DOCUMENT, ("addNote",))["addNote"].tool.input_schema
    assert schema["properties"]["reply"] == {}
    assert schema["required"] == ["id", "text"]


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_an_argument_stays_one_segment_of_the_path(value: str) -> None:
    operation = read_operations(DOCUMENT, ("listNotes",))["listNotes"]
    if value in ("", ".", ".."):
        with pytest.raises(ArgumentsError):
            make_request(operation, {"id": value})
        return
    parts = make_request(operation, {"id": value}).target.split("/")
    assert (len(parts), parts[1], unquote(parts[2]), parts[3]) == (4, "users", value, "notes")


@pytest.mark.parametrize("value", ["a\r\nx: y", "é", "\0"])
def test_a_header_is_printable_ascii(value: str) -> None:
    operation = read_operations(DOCUMENT, ("listNotes",))["listNotes"]
    with pytest.raises(ArgumentsError):
        make_request(operation, {"id": "a", "X-Trace": value})


@pytest.mark.parametrize("arguments", [{}, {"id": None}, {"id": "a", "other": 1}, {"id": {"a": 1}}, {"id": ["a"]}])
def test_arguments_that_make_no_request_are_refused(arguments: dict[str, Any]) -> None:
    operation = read_operations(DOCUMENT, ("listNotes",))["listNotes"]
    with pytest.raises(ArgumentsError):
        make_request(operation, arguments)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"openapi": "2.0"}, "not an OpenAPI"),
        ({"paths": {}}, "no operation"),
        ({"paths": {"/a": {"get": {"operationId": "listNotes", "parameters": [{"$ref": "other.yaml#/a"}]}}}}, "out of"),
        ({"paths": {"/a": {"get": {"operationId": "listNotes", "parameters": [{"$ref": "#/a"}]}}}}, "nowhere"),
        ({"paths": []}, "not an object"),
    ],
)
def test_a_document_that_describes_no_operation_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        read_operations({**DOCUMENT, **change}, ("listNotes",))


def test_the_server_is_the_documents_first() -> None:
    assert server_url(DOCUMENT) == "https://api.example.com/v2"
    for servers in ([], [{"url": "/relative"}], [{"url": "file:///etc"}]):
        with pytest.raises(DocumentError):
            server_url({**DOCUMENT, "servers": servers})
