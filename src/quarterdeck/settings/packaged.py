"""The quarterdeck.yaml that ships with the package, and which file a process therefore reads."""

from pathlib import Path

from quarterdeck.settings.environment import Environment

PACKAGED_CONFIG = Path(__file__).with_name("quarterdeck.yaml")


def config_path(environment: Environment) -> Path:
    """QUARTERDECK_CONFIG, or the packaged file where that is unset."""
    return environment.config or PACKAGED_CONFIG
