"""The quarterdeck.yaml shipped with the package, and the choice of the file to read."""

from pathlib import Path

from quarterdeck.settings.environment import Environment

PACKAGED_CONFIG = Path(__file__).with_name("quarterdeck.yaml")


def config_path(environment: Environment) -> Path:
    """QUARTERDECK_CONFIG, or the packaged file if it is unset."""
    return environment.config or PACKAGED_CONFIG
