"""The settings of a workspace, and where it may be."""

from pathlib import Path

import pytest

from konveyer.core.settings import FILE_NAME, BadSettings, load_settings


@pytest.mark.parametrize("name", ["a%20b", "what?", "c#"])
def test_a_folder_whose_name_is_part_of_a_url_to_libraries_is_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / FILE_NAME).write_text('[workspace]\nname = "shop"\n')
    with pytest.raises(BadSettings, match="parts of a URL") as caught:
        load_settings(tmp_path / name)
    assert caught.value.hint == "give the workspace a folder of another name"


def test_a_folder_may_have_any_other_name(tmp_path: Path) -> None:
    root = tmp_path / "Банк & Söhne (1)"
    root.mkdir()
    (root / FILE_NAME).write_text('[workspace]\nname = "shop"\n')
    assert load_settings(root / "features").root == root
