"""Why a template can't be stored, or can't be rendered with these values."""


class TemplateError(ValueError):
    """The template uses something that templates of prompts don't have. The message names the line."""


class RenderError(ValueError):
    """The template can't be rendered with these values, or the result exceeds a bound."""
