"""Secrets and personal data are replaced wherever they stand, and nothing else is."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.inference.making import delta

from quarterdeck import ids
from quarterdeck.content import Content
from quarterdeck.inference.capture.assembly import StreamAssembly
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.settings.content import RedactionConfig, RedactionPattern

# One for all tests: compiling the rules takes some 20 ms.
REDACTOR = Redactor()

# Made up in the issuers' forms; none opens anything. Joined, so that no scanner takes this file for a leak.
SECRETS = {
    "ours": "sk-qd-" + "a1B2" * 10,
    "openai": "sk-" + "proj-" + "Ab12_-" * 8,
    "anthropic": "sk-" + "ant-api03-" + "Ab12" * 10,
    "langfuse": "sk-" + "lf-" + "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
    "groq": "gsk" + "_" + "Ab12" * 10,
    "hugging face": "hf" + "_" + "AbCd1234" * 5,
    "github": "ghp" + "_" + "Ab12" * 9,
    "github fine-grained": "github" + "_pat_" + "Ab12_" * 12,
    "gitlab": "glpat" + "-" + "Ab12_-Ab12_-Ab12_-xy",
    "slack": "xoxb" + "-123456789012-" + "AbCdEf123456",
    "stripe": "sk" + "_live_" + "Ab12" * 6,
    "pypi": "pypi" + "-AgEIcHlwaS5vcmc" + "Ab12" * 12,
    "sendgrid": "SG" + "." + "Ab12_-" * 3 + "abcd." + "Ab12_-" * 7 + "x",
    "aws id": "AKIA" + "IOSFODNN7EXAMPLE",
    "gcp": "AIza" + "Ab12_-x" * 5,
    "gcp oauth": "ya29" + "." + "Ab12_-" * 6,
    "azure ad": "abc" + "8Q~" + "Ab12" * 8,
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "vault": "hvs" + "." + "Ab12_-" * 6,
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\nabc/def+ghi=\n-----END RSA " + "PRIVATE KEY-----",
    "private key without its end": "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1r",
}
IN_CONTEXT = {
    "bearer": ("Authorization: Bearer {}", "abc.DEF-123_456~xyz+/="),
    "basic": ("authorization: Basic {}", "dXNlcjpwYXNzd29yZA=="),
    "postgres": ("postgresql://app:{}@db.internal:5432/prod", "s3cr3t!pw"),
    "at sign in a password": ("redis://:{}@cache:6379/0", "p@ss:w0rd"),
    "aws secret": ('aws_secret_access_key = "{}"', "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "azure storage": ("DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};", "Ab12+/" * 12 + "=="),
    "azure sas": ("https://x.blob.core.windows.net/c?sv=2022&sig={}", "Ab12%2B" * 6),
    "key and value": ("password={}", "hunter22"),
    "yaml": ("client_secret: {}", "q1w2e3r4t5"),
    "ADO": ("Server=db;User=sa;Password={};Encrypt=true", "Tr0ub4dor&3"[:9]),
    "environment": ('export API_KEY="{}"', "0123456789abcdef0123456789abcdef"),
}
PERSONAL = {
    "email": ["bob@example.com", "bob.o'hara+x@mail.example.co.uk", "jürgen@müller.de", "ann%40example.com"],
    "phone": [
        "+49 170 1234567",
        "+1 (415) 555-2671",
        "(415) 555-2671",
        "415-555-2671",
        "0170 1234567",
        "0049 30 901820",
    ],
    "iban": [
        "DE89370400440532013000",
        "GB82 WEST 1234 5698 7654 32",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO9386011117947",
    ],
    "card": ["4111111111111111", "5500-0000-0000-0004", "3400 000000 00009", "6011 0009 9013 9424"],
    "ip_address": ["10.1.2.3", "203.0.113.77", "2001:db8::8a2e:370:7334", "fe80::1"],
    "national_id": [
        "219-09-9999",
        "AB 12 34 56 C",
        "12345678Z",
        "X1234567L",
        "RSSMRA85T10A562S",
        "44051401359",
        "529.982.247-25",
        "131052-308T",
        "1 85 05 78 006 084 91",
    ],
}
HARMLESS = [
    *(
        "",
        "Hello, world.",
        "Meet at 12:30:45 on 2024-05-06.",
        "Version 1.2.3 of the API",
        "127.0.0.1 and ::1 and 0.0.0.0",
    ),
    *(
        "See https://example.com:8080/a/b?c=d#e",
        "the bearer of this letter",
        "sk-short",
        "1234567890123456",
        "4111111111111112",
    ),
    *(
        "DE00 0000 0000 0000 0000 00",
        "0000-00-0000",
        "3.14159265358979",
        "a secret: ",
        "password: [password]",
        "12345678A",
    ),
    *("std::vector<int>::iterator", "task-force-of-the-whole-nation", "The password is required", "100 000 000 Euro"),
]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize(
    "around", ["{}", "my key is {}.", "[{}]", '{{"k": "{}"}}', "a\n{}\nb", "key={}", "({})", "`{}`"]
)
def test_a_secret_in_a_known_form_is_replaced(secret: str, around: str) -> None:
    text = around.format(secret)
    found = REDACTOR.text(text)
    assert secret not in found
    assert not any(part in found for part in secret.split("\n")[1:2])
    assert REDACTOR.text(found) == found


@pytest.mark.parametrize(("around", "secret"), IN_CONTEXT.values(), ids=IN_CONTEXT.keys())
def test_a_secret_is_known_by_what_stands_before_it(around: str, secret: str) -> None:
    found = REDACTOR.text(f"see {around.format(secret)} please")
    assert secret not in found
    assert found.startswith("see ") and found.endswith(" please")
    assert REDACTOR.text(found) == found


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_replaced(rule: str, text: str) -> None:
    counts: Counter[str] = Counter()
    assert REDACTOR.text(f"It is {text}, thanks.", counts) == f"It is [{rule}], thanks."
    assert counts == {rule: 1}


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_a_number_between_other_numbers_is_found() -> None:
    assert REDACTOR.text("Order 12 4111 1111 1111 1111 123 by DE89 3704 0044 0532 0130 00 EUR") == (
        "Order 12 [card] 123 by [iban] EUR"
    )


def test_checksums_tell_real_numbers_from_others() -> None:
    for text in ("DE88370400440532013000", "4111111111111112", "12345678A", "44051401358", "529.982.247-26"):
        assert REDACTOR.text(text) == text


# JSON


def test_a_secret_is_found_in_every_part_of_a_message() -> None:
    secret = SECRETS["ours"]
    arguments = json.dumps({"command": f"curl -H 'Authorization: Bearer {secret}'", "n": [secret]})
    escaped = json.dumps({"note": "bob\u0040example.com"}).replace("@", "\\u0040")
    value = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": f"use {secret}"}]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "sh", "arguments": arguments}}]},
            {"role": "tool", "content": escaped},
            {"role": "user", "content": "x", secret: 1},
        ]
    }
    content = Content(level="full", input=json.dumps(value).encode(), output=None)
    found = REDACTOR.content(content)
    assert found.input is not None
    assert secret.encode() not in found.input
    assert b"bob" not in found.input
    assert found.redacted["api_key"] >= 3
    assert found.redacted["email"] == 1
    assert json.loads(json.loads(found.input)["messages"][1]["tool_calls"][0]["function"]["arguments"])["n"] == [
        "[api_key]"
    ]


def test_the_name_of_a_member_tells_that_its_value_is_a_secret() -> None:
    counts: Counter[str] = Counter()
    assert REDACTOR.value({"password": "correcthorse", "user": "bob"}, counts) == {
        "password": "[password]",
        "user": "bob",
    }
    assert counts == {"password": 1}


def test_a_secret_split_over_the_chunks_of_a_stream_is_found() -> None:
    text = f"The key is {SECRETS['openai']} and {SECRETS['private key']} and bob@example.com."
    stream = StreamAssembly(10_000)
    for char in text:
        stream.add(delta(char))
    content = Content(level="full", output=json.dumps(stream.choices()).encode())
    found = REDACTOR.content(content).output
    assert found is not None
    assert json.loads(found)[0]["message"]["content"] == "The key is [api_key] and [private_key] and [email]."


def test_a_whole_answer_becomes_its_choices_and_pictures_become_hashes() -> None:
    answer = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": None}}]}
    picture = {"messages": [{"content": [{"image_url": {"url": "data:image/png;base64," + "QUJD" * 100}}]}]}
    found = REDACTOR.content(
        Content(level="full", input=json.dumps(picture).encode(), output=json.dumps(answer).encode())
    )
    assert json.loads(found.output or b"") == [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": None}
    ]
    assert b"QUJD" not in (found.input or b"")
    assert b"<media: image/png, 300 bytes, sha256 " in (found.input or b"")


def test_what_is_no_json_is_dropped_rather_than_stored() -> None:
    found = REDACTOR.content(Content(level="full", input=b"{", output=b"\xff"))
    assert (found.input, found.output) == (None, None)


# settings


def test_own_patterns_go_first_and_rules_can_be_kept_out() -> None:
    config = RedactionConfig(
        patterns=(RedactionPattern(name="employee", pattern=r"\bE-[0-9]{6}\b"),), keep=("ip_address", "phone")
    )
    assert Redactor(config).text("E-123456 at 10.0.0.1, bob@example.com") == "[employee] at 10.0.0.1, [email]"


def test_both_groups_can_be_turned_off() -> None:
    text = f"{SECRETS['ours']} bob@example.com"
    assert Redactor(RedactionConfig(secrets=False)).text(text) == f"{SECRETS['ours']} [email]"
    assert Redactor(RedactionConfig(personal=False)).text(text) == "[api_key] bob@example.com"
    assert Redactor(RedactionConfig(secrets=False, personal=False)).text(text) == text


def test_a_pattern_that_blows_up_elsewhere_takes_linear_time() -> None:
    config = RedactionConfig(patterns=(RedactionPattern(name="evil", pattern=r"(a+)+$"),))
    assert Redactor(config).text("a" * 50_000 + "b" * 6) == "a" * 50_000 + "b" * 6


def test_fifty_large_patterns_find_what_they_should() -> None:
    text = "".join(chr(97 + n * n % 26) for n in range(5_000))
    own = tuple(RedactionPattern(name=f"p{n}", pattern=f"[a-z]{{90}}X{n:02}|[a-z0-9]{{90}}Y{n:02}") for n in range(50))
    found = Redactor(RedactionConfig(patterns=own)).text(f"{text}X07 bob@example.com {text}Y33 {SECRETS['ours']}")
    assert found == f"{text[:-90]}[p7] [email] {text[:-90]}[p33] [api_key]"


def test_the_rules_take_little_memory() -> None:
    """RE2 makes states for each repetition: a rule with large bounds takes hundreds of megabytes."""
    sizes = {rule.pattern: pattern.programsize for rule, pattern in REDACTOR._rules}
    assert max(sizes.values()) < 1500
    assert sum(sizes.values()) < 10_000
    assert REDACTOR._any is not None


# laws


_alphabet = "abcdefXYZ0123456789-_.@+/=: \n[]{}\"'"
_texts = st.text(_alphabet, max_size=200) | st.text(max_size=200)


@settings(max_examples=300)
@given(_texts)
@example("password: password: x1y2z3")
@example("bearer bearer abc12345 secret=secret=q1w2e3")
@example("a@b.co@c.de 4111 1111 1111 1111 1111 1111 1111 1111")
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(list(SECRETS.values())), st.integers(0, 3))
def test_no_known_secret_is_left_in_any_json(before: str, after: str, secret: str, depth: int) -> None:
    value: Any = f"{before} {secret} {after}"
    for _ in range(depth):
        value = [{"text": value}] if depth % 2 else {"arguments": json.dumps({"a": value})}
    content = Content(level="full", input=json.dumps({"messages": value}).encode())
    found = REDACTOR.content(content).input
    assert found is not None
    assert json.dumps(secret)[1:-1].encode() not in found
    assert secret.encode() not in found


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.text(st.characters(codec="utf-8"), max_size=30))
def test_no_key_of_ours_is_left_whatever_stands_around_it(before: str, after: str) -> None:
    secret = ids.api_key()
    assert secret not in REDACTOR.text(f"{before}{secret}{after}")


def test_rules_are_compiled_by_the_first_text() -> None:
    redactor = Redactor()
    assert not vars(redactor).keys() & {"_rules", "_any"}
    redactor.text("a text of some length")
    assert vars(redactor).keys() >= {"_rules", "_any"}


def test_no_rule_takes_long_to_compile_as_nothing_else_runs_meanwhile() -> None:
    sizes = {pattern.programsize: rule.name for rule, pattern in REDACTOR._rules}
    assert max(sizes) < 20_000, sizes[max(sizes)]  # instructions; an e-mail's with counted letters was 792,385: 1.1 s


def test_an_address_is_replaced_whole_however_long_it_is() -> None:
    assert REDACTOR.text("to " + "ann." * 40 + "smith@" + "mail." * 12 + "example.photography now") == "to [email] now"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("4111\u00a01111\u202f1111\u20091111", "[card]"),
        ("4111\u20111111\u20131111\u22121111", "[card]"),
        ("4111\u200b1111\u200d1111\ufeff1111", "[card]"),
        ("\uff14\uff11\uff11\uff11 1111 1111 1111", "[card]"),
        ("\u0664\u0661\u0661\u0661 1111 1111 1111", "[card]"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "[iban]"),
        ("joe\uff20example.com", "[email]"),
        ("\uff0b49 170 1234567", "[phone]"),
        ("sk\u2011qd\u2011" + "a1B2" * 10, "[api_key]"),
        ("s\u200bk-qd-" + "a1\u00adB2" * 10, "[api_key]"),
        ("s\U000e0001k-qd-" + "a1B2" * 10, "[api_key]"),
    ],
)
def test_characters_that_stand_for_ascii_hide_nothing(text: str, redacted: str) -> None:
    assert REDACTOR.text(text) == redacted
    arguments = json.dumps({"a": text})  # of a tool call
    assert "1111" not in str(REDACTOR.value({"arguments": arguments}, Counter()))


def test_typography_stays_where_nothing_is_found() -> None:
    kept = "caf\u00e9 \u2013 \u201cthree\u201d\u00a0%, \u05e9\u200f \U0001f468\u200d\U0001f469"
    assert REDACTOR.text(kept) == kept
    counts: Counter[str] = Counter()
    assert REDACTOR.text(f"{kept}\n4111\u00a01111\u00a01111\u00a01111", counts) == f"{kept}\n[card]"
    assert counts == {"card": 1}


def test_what_reaches_over_lines_is_found_as_well() -> None:
    key = "-----BEGIN\u00a0PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
    assert "MIIE" not in REDACTOR.text(key)
