from quarterdeck.simulator.model.chat_template import last_user_text, render, text_of

USER = {"role": "user", "content": "hi"}


def test_messages_become_chatml() -> None:
    assert render([USER]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_continued_answer_is_the_prompt_and_the_partial_text() -> None:
    half = {"role": "assistant", "content": "One, "}
    assert render([USER, half], continue_final_message=True) == render([USER]) + "One, "


def test_parts_that_are_not_text_are_placeholders() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "x"}}, "plain"]
    assert text_of(parts) == "look\n<image_url>\nplain"
    assert text_of(None) == ""


def test_the_last_user_message_is_found() -> None:
    assert last_user_text([USER, {"role": "assistant", "content": "no"}]) == "hi"
    assert last_user_text([]) == ""
