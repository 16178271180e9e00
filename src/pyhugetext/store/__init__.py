"""The text store as people ask for it by name: `pyhugetext warm`, `store` and `doctor`.

Everything is done by the native part (src/native/builder); no program's start and no import comes
here. `places` is about a store as a whole, `warm` fills one, `upkeep` looks through it.
"""
