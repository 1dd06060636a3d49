"""What the clients of a soak were told, counted."""

from dataclasses import dataclass, field

#: Of what went wrong, so many are told in words.
MAX_NOTES = 10


@dataclass
class Tally:
    """`answers` by `name@version`, all of them right; `busy` are 429 and 503 with Retry-After; `damaged` the
    refusals of the damaged version; `undue` any other refusal; `lost` requests that were never answered."""

    answers: dict[str, int] = field(default_factory=dict)
    busy: int = 0
    damaged: int = 0
    wrong: int = 0
    undue: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    def answered(self, name: str) -> None:
        self.answers[name] = self.answers.get(name, 0) + 1

    def note(self, words: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(words)

    def add(self, other: "Tally") -> None:
        for name, count in other.answers.items():
            self.answers[name] = self.answers.get(name, 0) + count
        self.busy += other.busy
        self.damaged += other.damaged
        self.wrong += other.wrong
        self.undue += other.undue
        self.lost += other.lost
        for words in other.notes:
            self.note(words)

    def __str__(self) -> str:
        by_version = ", ".join(f"{name} {count:,}" for name, count in sorted(self.answers.items()))
        return (
            f"{sum(self.answers.values()):,} right answers ({by_version}), {self.wrong} wrong, "
            f"{self.lost} lost, {self.busy:,} told to come back, {self.damaged:,} refused as damaged, "
            f"{self.undue} refused otherwise"
        )
