"""OpenAI's responses: executed on chat completions of any engine, and stored."""
