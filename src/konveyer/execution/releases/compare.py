"""Reading what a release is compared with: the version that production served, or serves."""

from pathlib import Path

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from konveyer.bundle.manifest import CODE, LOCK
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.execution.releases.difference import Difference, Packed, difference
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.records import current_live, release_row
from konveyer.execution.releases.tables import LiveVersionRow, ReleaseRow
from konveyer.feature_store.registry.tables import DefinitionRow

_MOST_BYTES = 500_000


def compare(catalog: Catalog, bundles: BundleStore, release: str) -> Difference:
    """The release against the version it replaces; raises when one of the bundles is gone."""
    with catalog.reading() as session:
        row = release_row(session, release)
        base = base_of(session, row)
        after = _packed(session, bundles.open(row.digest))
        before = None if base is None else _packed(session, bundles.open(base.digest))
        return difference(row.id, after, None if base is None else base.id, before)


def base_of(session: Session, row: ReleaseRow) -> ReleaseRow | None:
    """What production served just before the release, or what it serves while that is on its way.

    Of a new API version it is the highest lower one that is live.
    """
    own = session.scalars(_served(row).where(LiveVersionRow.release_id == row.id)).first()
    if own is not None:
        before = session.scalars(
            _served(row)
            .where(LiveVersionRow.id < own.id, LiveVersionRow.release_id.is_not(None))
            .order_by(LiveVersionRow.id.desc())
        ).first()
        return _row(session, before)
    for version in range(row.api_version, 0, -1):
        live = current_live(session, PROD, row.application, version)
        if live is not None:
            return _row(session, live)
    return None


def _served(row: ReleaseRow) -> Select[LiveVersionRow]:
    return (
        select(LiveVersionRow)
        .where(LiveVersionRow.environment == PROD)
        .where(LiveVersionRow.application == row.application)
        .where(LiveVersionRow.api_version == row.api_version)
        .order_by(LiveVersionRow.id)
    )


def _row(session: Session, live: LiveVersionRow | None) -> ReleaseRow | None:
    return (
        None if live is None or live.release_id is None else release_row(session, live.release_id)
    )


def _packed(session: Session, bundle: Bundle) -> Packed:
    service = bundle.manifest.service
    versions = [(view.name, view.version) for view in service.views]
    versions += [(view.name, view.version) for view in service.on_demand]
    definitions: dict[str, str] = {}
    for name, version in versions:
        rows = select(DefinitionRow).where(
            DefinitionRow.name == name, DefinitionRow.version == version
        )
        for row in session.scalars(rows):
            definitions[name] = _readable(row.spec)
    return Packed(
        manifest=bundle.manifest,
        code=_texts(bundle.path / CODE),
        lock=(bundle.path / LOCK).read_text(errors="replace"),
        definitions=definitions,
    )


def _readable(spec: object) -> str:
    """What a definition says, as JSON over lines; texts such as SQL line by line."""
    said = msgspec.json.encode(_said(spec), order="sorted")
    return msgspec.json.format(said, indent=2).decode().replace("\\n", "\n")


def _said(spec: object) -> object:
    """Without what was left out."""
    match spec:
        case dict():
            kept = {name: _said(value) for name, value in spec.items()}
            return {name: value for name, value in kept.items() if value not in (None, "", [], {})}
        case list():
            return [_said(one) for one in spec]
        case _:
            return spec


def _texts(folder: Path) -> dict[str, str]:
    """Every file of the code that is text; of others only that they are there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            is_text = len(content) <= _MOST_BYTES and b"\0" not in content
            said = f"{len(content):,} bytes, not shown"
            name = str(path.relative_to(folder))
            found[name] = content.decode(errors="replace") if is_text else said
    return found
