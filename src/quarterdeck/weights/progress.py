"""How far a download is."""

from dataclasses import dataclass

UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of all files of a download; those that lay here before count as done."""

    done: int = 0
    total: int = 0
    """0: the hub has not answered yet."""
    rate: float | None = None
    """Bytes a second, over the last seconds."""

    @property
    def percent(self) -> int:
        """Rounded down: 100 is complete."""
        return 0 if self.total == 0 else min(100, self.done * 100 // self.total)

    @property
    def seconds_left(self) -> float | None:
        return None if not self.rate or self.total == 0 else (self.total - self.done) / self.rate

    def text(self) -> str:
        """`downloading 34 % (1.2 GB of 3.5 GB, 88 MB/s)`."""
        if self.total == 0:
            return "asking the hub"
        rate = f", {size_text(self.rate)}/s" if self.rate else ""
        return f"downloading {self.percent} % ({size_text(self.done)} of {size_text(self.total)}{rate})"


def size_text(size: float) -> str:
    """Decimal units, as disks and hubs state sizes: `3.5 GB`."""
    unit = 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit < 2 or size >= 99.5 else f"{size:.1f} {UNITS[unit]}"
