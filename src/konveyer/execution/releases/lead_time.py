"""Lead time: from submission to production, waiting and working apart."""

from dataclasses import dataclass

from konveyer.execution.releases.records import Release


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadTime:
    """Seconds that a release waited (for people and for its turn) and was worked on."""

    waited_s: float
    worked_s: float

    @property
    def total_s(self) -> float:
        return self.waited_s + self.worked_s


def lead_time(release: Release) -> LeadTime:
    """Over the stages that have started."""
    return LeadTime(
        waited_s=sum(stage.waited_s for stage in release.stages),
        worked_s=sum(stage.worked_s for stage in release.stages),
    )
