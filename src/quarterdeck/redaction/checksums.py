"""Whether text that looks like an account, a card or an identity number is one: its check digits say so. Pure.

Each function takes the text that a pattern found and returns the ranges in it to replace. A pattern matches greedily,
so what it found may have digits of something else before or after the number.
"""

import ipaddress
import re
from collections.abc import Iterator

Ranges = list[tuple[int, int]]

IBAN_LENGTHS = {
    **{"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28},
    **{"CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18},
    **{"FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22},
    **{"IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20},
    **{"LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18},
    **{"NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18},
    **{"SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22},
    **{"VG": 24, "XK": 20},
}
"""Characters of an IBAN by country (ISO 13616)."""
_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_ODD_DIGITS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_FISCAL_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (*_ODD_DIGITS, *_ODD_DIGITS, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def iban(text: str) -> Ranges:
    """An IBAN at the start of the text, in groups or not."""
    length = IBAN_LENGTHS.get(text[:2].upper())
    if length is None:
        return []
    kept, end = "", 0
    for end, char in enumerate(text, 1):  # noqa: B007  # where it stops
        if char.isalnum():
            kept += char.upper()
        if len(kept) == length:
            break
    if len(kept) != length or (end < len(text) and text[end].isalnum()):
        return []
    digits = "".join(str(int(char, 36)) for char in kept[4:] + kept[:4])
    return [(0, end)] if int(digits) % 97 == 1 else []


def card(text: str) -> Ranges:
    """Card numbers of 13 to 19 digits, in groups or not, whose Luhn digit is right."""
    found: Ranges = []
    at = 0
    for start, end, digits in _numbers(text, 13, 19):
        if start >= at and digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits):
            found.append((start, end))
            at = end
    return found


def luhn(digits: str) -> bool:
    total = 0
    for place, char in enumerate(reversed(digits)):
        digit = int(char) * (1 + place % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


def phone(text: str) -> Ranges:
    """A phone number has 7 to 15 digits (E.164)."""
    return [(0, len(text))] if 7 <= sum(char.isdigit() for char in text) <= 15 else []


def ip_address(text: str) -> Ranges:
    """An IPv4 or IPv6 address, but for those of the machine itself, which say nothing of anybody."""
    address = text.strip(".").partition("%")[0]
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return []
    start = text.index(address)
    return [] if parsed.is_loopback or parsed.is_unspecified else [(start, start + len(address))]


def us_ssn(text: str) -> Ranges:
    area, group, serial = text[:3], text[4:6], text[7:]
    is_issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return [(0, len(text))] if is_issued else []


def es_dni(text: str) -> Ranges:
    """Spain: DNI and NIE, with their letter."""
    kept = text.replace("-", "").upper()
    number = kept[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return [(0, len(text))] if number.isdigit() and _DNI[int(number) % 23] == kept[-1] else []


def fr_nir(text: str) -> Ranges:
    """France: the number of social security, 13 characters and a key of two digits."""
    kept = re.sub(r"[ .-]", "", text).upper().replace("2A", "19").replace("2B", "18")
    if len(kept) != 15 or not kept.isdigit():
        return []
    return [(0, len(text))] if 97 - int(kept[:13]) % 97 == int(kept[13:]) else []


def it_codice_fiscale(text: str) -> Ranges:
    kept = text.upper()
    total = 0
    for place, char in enumerate(kept[:15]):
        total += _FISCAL_ODD[char] if place % 2 == 0 else int(char) if char.isdigit() else ord(char) - 65
    return [(0, len(text))] if chr(65 + total % 26) == kept[15] else []


def pl_pesel(text: str) -> Ranges:
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
    total = sum(int(char) * weight for char, weight in zip(text, weights, strict=False))
    month, day = int(text[2:4]) % 20, int(text[4:6])
    is_number = (10 - total % 10) % 10 == int(text[10]) and 1 <= month <= 12 and 1 <= day <= 31
    return [(0, len(text))] if is_number else []


def br_cpf(text: str) -> Ranges:
    digits = [int(char) for char in text if char.isdigit()]
    if len(digits) != 11 or len(set(digits)) == 1:
        return []
    for count in (9, 10):
        total = sum(digit * (count + 1 - place) for place, digit in enumerate(digits[:count]))
        if total * 10 % 11 % 10 != digits[count]:
            return []
    return [(0, len(text))]


def fi_hetu(text: str) -> Ranges:
    number = text[:6] + text[7:10]
    return [(0, len(text))] if _HETU[int(number) % 31] == text[10].upper() else []


def _numbers(text: str, least: int, most: int) -> Iterator[tuple[int, int, str]]:
    """Runs of digits and single separators in the text that begin and end where a group does, the longest first at each
    start: (start, end, digits)."""
    groups = [match.span() for match in re.finditer(r"[0-9]+", text)]
    for first, (start, _) in enumerate(groups):
        spans = []
        digits = ""
        for begin, end in groups[first:]:
            digits += text[begin:end]
            if len(digits) > most:
                break
            if len(digits) >= least:
                spans.append((start, end, digits))
        yield from reversed(spans)
