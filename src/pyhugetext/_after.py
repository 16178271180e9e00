"""After a pass: build the entries it found missing, pass again, and tell decisions if asked to."""

from pyhugetext import _boot, _settings


def run() -> None:
    """Never leaves a region waiting: whatever the building comes to, the next backing follows."""
    settings = _settings.current()
    try:
        build_missing(settings.backing)
    finally:
        _boot.retry(True)
    if settings.debug:
        from pyhugetext import _debug

        _debug.report()


def build_missing(backing: int) -> None:
    """Builds what the last pass found missing in the stores that `backing` (the core's number)
    draws on, as far as the settings allow."""
    settings = _settings.current()
    if settings.build == "never" or not _boot.missing():
        return
    from pyhugetext.store import build

    build.build_missing(settings, backing)
