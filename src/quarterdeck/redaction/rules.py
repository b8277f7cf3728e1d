"""The rules for secrets and personal data: what each looks like, and how a match is checked.

Patterns are RE2's: they take time in proportion to the text, and memory in proportion to the bounds of repetitions, so
these are few and small. `(` … `)` marks what is replaced, where that is not the
whole match. Secrets go first, as an e-mail address may be part of one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from quarterdeck.redaction import checksums
from quarterdeck.redaction.checksums import Ranges

Check = Callable[[str], Ranges]


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of secret or of personal data. Matches become `[name]`."""

    name: str
    pattern: str
    check: Check | None = None
    """The ranges of the match that are really one. None: all of it."""


_KEY = r"(?i)\b(?:password|passwd|passphrase|pwd|secret|client[_-]?secret|secret[_-]?access[_-]?key|api[_-]?key"
_KEY += r"|access[_-]?token|auth[_-]?token|refresh[_-]?token|private[_-]?token|x-api-key)"


def _is_opaque(text: str) -> Ranges:
    """A word of prose is no token: one has a digit, or upper case in its middle."""
    is_token = any(char.isdigit() for char in text) or (text[1:].lower() != text[1:] and not text.isupper())
    return [(0, len(text))] if is_token else []


def _is_secret_value(text: str) -> Ranges:
    is_placeholder = text.startswith(("[", "<", "{", "$", "*")) or text.strip("*xX.") == ""
    is_word = text.lower() in ("none", "null", "true", "false", "undefined", "string", "required", "optional")
    return [] if is_placeholder or is_word else [(0, len(text))]


def _is_unredacted(text: str) -> Ranges:
    return [] if text.startswith("[") and text.endswith("]") else [(0, len(text))]


SECRETS: tuple[Rule, ...] = (
    Rule(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
        r"(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|\z)",  # its end may be cut
    ),
    Rule("private_key", r"AGE-SECRET-KEY-1[0-9A-Z]{40,}"),
    Rule("jwt", r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+){0,2}"),
    # Without a word boundary where the prefix is distinctive: a key may stand right behind a letter.
    Rule("api_key", r"[sp]k-(?:qd|proj|svcacct|admin|ant|or|lf)-[A-Za-z0-9_-]{16,}"),
    # OpenAI's, Anthropic's, OpenRouter's, Langfuse's and others that begin alike.
    Rule("api_key", r"\b[sp]k-[A-Za-z0-9_-]{16,}"),
    Rule(
        "api_key",
        r"\b(?:gsk|xai|pplx|nvapi|fw|r8|hf|npm|dop_v1|doo_v1|dapi|lsv2_pt|lsv2_sk|rpa|whsec)[_-]?[A-Za-z0-9_-]{24,}",
        _is_opaque,
    ),
    Rule("api_key", r"gh[pousr]_[A-Za-z0-9]{20,}"),
    Rule("api_key", r"github_pat_[A-Za-z0-9_]{20,}"),
    Rule("api_key", r"gl(?:pat|dt|rt|cbt|ptt|soat)-[A-Za-z0-9_-]{16,}"),
    Rule("api_key", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    Rule("api_key", r"xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    Rule("api_key", r"hooks\.slack\.com/services/([A-Za-z0-9/]{20,})"),
    Rule("api_key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    Rule("api_key", r"pypi-[A-Za-z0-9_-]{32,}"),
    Rule("api_key", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    Rule("api_key", r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    Rule("api_key", r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{32,34}\b"),
    Rule("api_key", r"hv[sbr]\.[A-Za-z0-9_-]{20,}"),
    Rule("aws_key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    Rule(
        "aws_key",
        r"(?i)\baws[\w .-]{0,30}(?:secret|key)[\w .-]{0,20}\\?[\"']?\s{0,4}[=:]{1,2}>?\s{0,4}\\?[\"']?"
        r"([A-Za-z0-9/+]{40})",
    ),
    Rule("gcp_key", r"AIza[A-Za-z0-9_-]{30,}"),
    Rule("gcp_key", r"ya29\.[A-Za-z0-9_-]{16,}"),
    Rule("gcp_key", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
    Rule("azure_key", r"(?i)\b(?:AccountKey|SharedAccessKey|SharedSecret)=([A-Za-z0-9+/=%]{20,})"),
    Rule("azure_key", r"[?&;]sig=([A-Za-z0-9%+/=_-]{20,})"),
    Rule("azure_key", r"\b[A-Za-z0-9_~.]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}"),
    Rule("password", r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@\"'<>]*:([^\s/\"'<>]+)@", _is_unredacted),
    Rule("bearer_token", r"(?i)\bbearer\s{1,4}([A-Za-z0-9._~+/=-]{8,})", _is_opaque),
    Rule(
        "bearer_token",
        r"(?i)\bauthorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:basic|token|digest|apikey)\s{1,4}([A-Za-z0-9._~+/=-]{6,})",
    ),
    Rule("password", _KEY + r"\\?[\"']?\s{0,4}(?:=>|:=|[:=])\s{0,4}\\?[\"']?([^\s\"'\\,;&]{4,})", _is_secret_value),
)

# Everything beyond ASCII counts as a letter: \p{L} would make an automaton of some hundred thousand states.
_LOCAL = r"[A-Za-z0-9._%+'\x{80}-\x{10ffff}-]+"
_LABEL = r"[A-Za-z0-9\x{80}-\x{10ffff}-]+"
_TOP = r"[A-Za-z\x{80}-\x{10ffff}]{2,24}"

PERSONAL: tuple[Rule, ...] = (
    Rule("email", _LOCAL + "(?:@|%40)(?:" + _LABEL + r"\.)+" + _TOP),
    Rule("iban", r"(?i)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{1,4}){3,9}", checksums.iban),
    Rule("card", r"\b[0-9](?:[ -]?[0-9]){12,40}\b", checksums.card),
    Rule("national_id", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", checksums.us_ssn),
    Rule("national_id", r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b"),
    Rule("national_id", r"(?i)\b(?:[0-9]{8}|[XYZ][0-9]{7})-?[A-HJ-NP-TV-Z]\b", checksums.es_dni),
    Rule(
        "national_id",
        r"(?i)\b[1-4][ .-]?[0-9]{2}[ .-]?[0-9]{2}[ .-]?[0-9][0-9AB][ .-]?[0-9]{3}[ .-]?[0-9]{3}[ .-]?[0-9]{2}\b",
        checksums.fr_nir,
    ),
    Rule(
        "national_id",
        r"(?i)\b[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPR-T][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]\b",
        checksums.it_codice_fiscale,
    ),
    Rule("national_id", r"\b[0-9]{11}\b", checksums.pl_pesel),
    Rule("national_id", r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", checksums.br_cpf),
    Rule("national_id", r"(?i)\b[0-9]{6}[+A-FU-Y-][0-9]{3}[0-9A-FHJ-NPR-Y]\b", checksums.fi_hetu),
    Rule("ip_address", r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b", checksums.ip_address),
    Rule(
        "ip_address",
        r"(?:[0-9A-Fa-f]{1,4}:|:){2,7}(?::|[0-9A-Fa-f]{1,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})",
        checksums.ip_address,
    ),
    Rule("phone", r"(?:\+|\b00)[1-9](?:[ ().\/-]{0,2}[0-9]){6,14}\b", checksums.phone),
    Rule("phone", r"(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}\b", checksums.phone),
    Rule("phone", r"\b0[1-9][0-9]{1,4}[ \/-][0-9](?:[ -]?[0-9]){4,9}\b", checksums.phone),
)

NAMES = tuple(dict.fromkeys(rule.name for rule in (*SECRETS, *PERSONAL)))
"""The names that `content.redaction.keep` may list."""
