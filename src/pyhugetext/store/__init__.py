"""The stores as people ask for them by name; may touch settings, binding and the stores' own files.

Everything is done by the native part (src/native/builder); no program's start and no import comes
here. `places` is about a store as a whole, `warm` fills one, `upkeep` looks through it.
"""
