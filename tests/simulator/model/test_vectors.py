from quarterdeck.simulator.model.vectors import cosine, embed


def test_texts_that_share_words_are_near() -> None:
    ship, boat, cake = (
        embed(text, 384) for text in ("the ship sails at dawn", "the ship sails at dusk", "bake a cake")
    )
    assert cosine(ship, boat) > 0.6 > 0.3 > cosine(ship, cake)
