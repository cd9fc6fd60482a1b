"""The example's workspace, made as people make it."""

import json
from pathlib import Path

from tests.support import Shop


def make_trained_shop(root: Path) -> None:
    """With computed features and a trained model, of an author and a reviewer."""
    shop = Shop(root)
    shop.run("init", str(root), "--example", "coupon-response")
    settings = root / "konveyer.toml"
    settings.write_text("load_seconds = 2.0\n" + settings.read_text())
    # The tests are of the conveyor, not of the machine; the demo keeps to 100 a second in 50 ms.
    model = root / "models/coupon_response/model.toml"
    text = model.read_text().replace("p99_ms = 50", "p99_ms = 2000")
    model.write_text(text.replace("rate_per_s = 100", "rate_per_s = 2.5"))
    for name, role in (("ana", "data-scientist"), ("boris", "ml-engineer"), ("eva", "analyst")):
        shop.run("people", "add", name, "--role", role)
        shop.run("people", "token", name, "--save")
    shop.run("apply")
    shop.run("etl", "run")
    labels = ("--labels", "data/labels.parquet", "--label", "redeemed")
    shop.run("training-set", "build", "coupon_response", *labels, profile="ana")
    shop.run("train", "models/coupon_response", profile="ana")


def make_released_shop(trained: Path, root: Path) -> None:
    """A copy of a trained one whose model went through every gate to production."""
    shop = Shop(trained).copied_to(root)
    release = shop.run("submit", "models/coupon_response", profile="ana")
    assert release["state"] == "review", json.dumps(release, indent=1)
    release = shop.run("release", "approve", release["id"], profile="boris")
    assert release["state"] == "live", json.dumps(release, indent=1)
    shop.caller("prod")
    shop.caller("test")
