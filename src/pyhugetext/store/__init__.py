"""The shared text store: huge-page-ready copies of ELF objects, found by the file's identity.

`elf` lays a copy out, `copy` writes it, `record` ties it to its original, `places` says where
stores are and whom to trust, `catalogue` keeps one store in order, `build` is what start-up calls.
The first process that needs an entry builds it while its program waits, so these modules import
little.
"""
