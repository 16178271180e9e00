"""Start-up where the environment has settings."""

from pyhugetext import _boot, _settings


def begin() -> None:
    """Reads the settings and starts the engine as they say."""
    settings = _settings.current()
    if settings.off:
        if settings.debug:
            _report()
        return
    missing = _boot.start(*settings.request())
    _boot.watch(settings.debug)
    if missing:
        from pyhugetext import _after

        _after.run()
    elif settings.debug:
        _report()


def _report() -> None:
    from pyhugetext import _debug

    _debug.report()
