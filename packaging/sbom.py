"""The parts of a frozen program as a CycloneDX document (SBOM).

Usage: sbom.py FOLDER FILE. FOLDER has the frozen program. Each component names its licence and, as
"occurrences", where in the folder it is. The same program gives the same bytes. Not for: packages
that are pinned but not carried.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

from contents import Part, parts
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_APPLIANCE = "qlik-mqtt-appliance"


def document(carried: Sequence[Part], at: int) -> str:
    """The document; ``at`` is its time, Unix. Raises ``SystemExit`` if the schema refuses it."""
    bom = Bom()
    bom.metadata.timestamp = datetime.fromtimestamp(at, UTC)
    components = {part.name: _component(part) for part in carried}
    root = components.pop(_APPLIANCE)
    root.type = ComponentType.APPLICATION
    bom.metadata.component = root
    bom.components = components.values()
    bom.register_dependency(root, components.values())
    names = "\n".join(f"{part.name} {part.version} {sorted(part.places)}" for part in carried)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, f"{at}\n{names}")
    text = _in_order(JsonV1Dot6(bom).output_as_string())
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise SystemExit(f"the SBOM does not keep to its schema: {problem}")
    return text + "\n"


def _in_order(text: str) -> str:
    """The document with its occurrences by place: the library orders them by address in memory."""
    document = json.loads(text)
    for component in (document["metadata"]["component"], *document["components"]):
        component["evidence"]["occurrences"].sort(key=itemgetter("location"))
    return json.dumps(document, indent=1, ensure_ascii=False)


def _component(part: Part) -> Component:
    licence = LicenseExpression(part.licence) if part.is_spdx else None
    return Component(
        name=part.name,
        version=part.version,
        type=ComponentType.LIBRARY,
        bom_ref=part.name,
        licenses=[licence or DisjunctiveLicense(name=part.licence)],
        purl=PackageURL("pypi", name=part.name.lower(), version=part.version)
        if part.is_distribution
        else None,
        evidence=ComponentEvidence(
            occurrences=[Occurrence(location=place) for place in sorted(part.places)]
        ),
    )


if __name__ == "__main__":
    made = document(parts(Path(sys.argv[1])), int(os.environ["SOURCE_DATE_EPOCH"]))
    Path(sys.argv[2]).write_text(made, "utf-8", newline="\n")
