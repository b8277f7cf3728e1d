"""`quarterdeck doctor`: its checks."""

from quarterdeck.cli import doctor


def test_doctor_knows_what_each_processor_computes_in() -> None:
    assert "bfloat16" in doctor.arithmetic(frozenset({"avx2", "avx512_bf16"})).what
    assert "float32" in doctor.arithmetic(frozenset({"avx2"})).what
    assert doctor.arithmetic(frozenset()).mark == "missing"


def test_doctor_says_how_to_get_what_is_missing() -> None:
    assert doctor.room("memory", 4, 8, "buy some") == doctor.Finding("missing", "memory: 4 GiB", "buy some")
    assert doctor.python_version((3, 10)).mark == "missing"
    assert doctor.python_version((3, 11)).mark == "ok"
