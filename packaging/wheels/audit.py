"""auditwheel, for wheels of any platform: it reads them, but offers as `--plat` only the platforms of
the machine that it runs on. Takes its arguments."""

from __future__ import annotations

import argparse
import sys

from auditwheel.main import main  # type: ignore[import-not-found,unused-ignore]

# What no wheel can have it refuses further on.
argparse.ArgumentParser._check_value = lambda *_: None  # type: ignore[method-assign]
sys.exit(main())
