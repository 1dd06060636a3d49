"""A page of metrics as Prometheus' own parser reads it."""

from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Scraped:
    families: dict[str, Metric]

    def labels(self, name: str) -> list[dict[str, str]]:
        """Of each series of the name."""
        return [sample.labels for sample in self._samples(name)]

    def value(self, name: str, **labels: str) -> float:
        """Of the one series of the name with these labels among its own."""
        found = [sample for sample in self._samples(name) if labels.items() <= sample.labels.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0].value

    def total(self, name: str, **labels: str) -> float:
        """Of all series of the name with these labels; 0 for none."""
        return sum(s.value for s in self._samples(name) if labels.items() <= s.labels.items())

    def buckets(self, name: str, **labels: str) -> dict[str, float]:
        """By their bounds, in their order."""
        return {
            sample.labels["le"]: sample.value
            for sample in self._samples(f"{name}_bucket")
            if labels.items() <= sample.labels.items()
        }

    def _samples(self, name: str) -> list[Sample]:
        samples = (sample for family in self.families.values() for sample in family.samples)
        # Of a counter whose name does not end in _total, as Triton's do not, the parser says that it does.
        return [sample for sample in samples if sample.name in (name, f"{name}_total")]


def scraped(text: str) -> Scraped:
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len({*names}) == len(names), "a family stands twice"
    series = [(s.name, *sorted(s.labels.items())) for family in families for s in family.samples]
    assert len({*series}) == len(series), "a series stands twice"
    return Scraped({family.name: family for family in families})
