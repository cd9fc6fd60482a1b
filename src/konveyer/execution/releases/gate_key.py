"""The key with which gates call nodes: of their own, kept where only its owner reads."""

import socket
from pathlib import Path

from konveyer.access.api_keys import KeyTerms, is_valid, issue_key
from konveyer.access.profiles import save_api_key
from konveyer.catalog.session import Catalog
from konveyer.core.files import locked
from konveyer.core.storage import Storage
from konveyer.execution.releases.live import publish_desired

NAME = "gates"


def gate_key(catalog: Catalog, storage: Storage, state: Path, environment: str) -> str:
    """The key of this machine for an environment; made when there is none that is valid."""
    path = state / "keys" / f"{NAME}-{environment}"
    with locked(path.with_suffix(".lock")):
        if path.is_file():
            key = path.read_text().strip()
            with catalog.reading() as session:
                if is_valid(session, key):
                    return key
        terms = KeyTerms(name=NAME, environment=environment, valid_days=None)
        with catalog.transaction() as session:
            key = issue_key(session, f"conveyor on {socket.gethostname()}", terms)
        save_api_key(state, NAME, environment, key)
    publish_desired(catalog, storage, environment)
    return key
