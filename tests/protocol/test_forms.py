"""Forms that an endpoint is sent."""

from quarterdeck.protocol.forms import FormPart, encode_form, with_fields


def test_a_field_is_set_where_it_was_and_added_where_it_was_not() -> None:
    parts = [FormPart("a", b"1"), FormPart("model", b"x"), FormPart("file", b"\0", "f.wav", "audio/wav")]
    changed = with_fields(parts, {"model": "y", "stream": "true"})
    assert [(part.name, part.data) for part in changed] == [
        ("stream", b"true"),
        ("a", b"1"),
        ("model", b"y"),
        ("file", b"\0"),
    ]


def test_a_name_can_not_break_the_form() -> None:
    _, body = encode_form([FormPart('a"\r\nx: y', b"1", 'f"\n.wav', "audio/wav")])
    head, _, _ = body.partition(b"\r\n\r\n")
    assert head.count(b"\r\n") == 2  # the boundary's, the disposition's
    assert b'name="a%22%0D%0Ax: y"; filename="f%22%0A.wav"' in head


def test_boundaries_differ() -> None:
    assert encode_form([])[0] != encode_form([])[0]
