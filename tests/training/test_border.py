import pytest

from contracts.errors import VerisynthError
from training.border import border


def leave(error: BaseException) -> None:
    with border("train_gan", "ihc-dcgan"):
        raise error


def test_what_the_user_can_mend_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        leave(VerisynthError("width 0 must be at least 1"))
    assert end.value.code == 1
    assert capsys.readouterr().err == "train_gan@ihc-dcgan: width 0 must be at least 1\n"


def test_a_stopped_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        leave(KeyboardInterrupt("stopped after 40 of 160 images"))
    assert end.value.code == 130
    message = capsys.readouterr().err
    assert "stopped after 40 of 160 images" in message
    assert "`dvc repro`" in message


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        leave(ZeroDivisionError())
