"""`Comparison`: records side by side, as plain data. Imports budget, compare and record."""

import json
from dataclasses import dataclass
from typing import Any

from featherweight.budget import Violation
from featherweight.compare import by_device
from featherweight.record import Record


@dataclass(frozen=True)
class Comparison:
    """Records side by side: device by device, within each lightest first."""

    records: tuple[Record, ...]
    keys: tuple[str, ...]
    front: tuple[str, ...]  # ids of the records that no other one of their device beats
    violations: dict[str, tuple[Violation, ...]]  # id → what it misses of the budget
    verdicts: dict[str, str]  # id → how its accuracy stands to the best one's of its device

    @property
    def devices(self) -> tuple["Comparison", ...]:
        """A comparison each device."""
        return tuple(
            Comparison(tuple(records), self.keys, self.front, self.violations, self.verdicts)
            for records in by_device(self.records).values()
        )

    @property
    def device(self) -> str:
        """The first record's device, as it is called: `Raspberry Pi 5, 4 cores (0123456789ab)`."""
        first = self.records[0]
        return f"{first.device.get('name', '?')}, {first.device.get('cores', '?')} cores ({first.device_id})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "keys": list(self.keys),
            "devices": [{"id": one.records[0].device_id, "name": one.device} for one in self.devices],
            "records": [
                {
                    **json.loads(record.to_json()),
                    "id": record.id,
                    "on_front": record.id in self.front,
                    "violations": [str(v) for v in self.violations[record.id]],
                    "accuracy_against_best": self.verdicts[record.id],
                }
                for record in self.records
            ],
        }
