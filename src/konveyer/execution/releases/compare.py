"""Reading what a release is compared with: the version that production serves, or served."""

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from konveyer.bundle.manifest import CODE, LOCK
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.digest import digest_bytes
from konveyer.execution.releases.difference import Difference, Packed, difference
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.records import release_row, stage_row_or_none
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
    """What production serves while the release is on its way there; then what it served at review.

    Of a new API version it is the highest lower one that is live.
    """
    is_coming = row.ended_us is None and row.state != State.PRODUCTION
    at_us = now_us() if is_coming else _reviewed_us(session, row)
    served = session.scalars(
        select(LiveVersionRow)
        .where(LiveVersionRow.environment == PROD)
        .where(LiveVersionRow.application == row.application)
        .where(LiveVersionRow.api_version <= row.api_version)
        .where(LiveVersionRow.since_us <= at_us)
        .where(or_(LiveVersionRow.until_us.is_(None), LiveVersionRow.until_us > at_us))
        .order_by(LiveVersionRow.api_version.desc())
    ).first()
    if served is None or served.release_id is None:
        return None
    return release_row(session, served.release_id)


def _reviewed_us(session: Session, row: ReleaseRow) -> int:
    """When the review of a release ended, or when it was opened where it came to none."""
    review = stage_row_or_none(session, row.id, State.REVIEW)
    return row.opened_us if review is None else review.finished_us or row.opened_us


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
    code, others = _files(bundle)
    return Packed(
        manifest=bundle.manifest,
        code=code,
        others=others,
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


def _files(bundle: Bundle) -> tuple[dict[str, str], dict[str, str]]:
    """Every file of the code that is text; of others the size and the digest.

    Bytes that are no UTF-8 stay apart from each other, and from all that is.
    """
    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    folder = bundle.path / CODE
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content, name = path.read_bytes(), str(path.relative_to(folder))
            if len(content) <= _MOST_BYTES and b"\0" not in content:
                texts[name] = content.decode(errors="surrogateescape")
            else:
                others[name] = f"{len(content):,} bytes, not shown, {digest_bytes(content)}"
    return texts, others
