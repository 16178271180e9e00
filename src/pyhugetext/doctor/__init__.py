"""What this machine can do and what limits it; may touch all but the command line, changes nothing.

One file a topic. Whatever can be tried is tried, and not concluded from versions and settings;
what is tried is done in memory, in files without a name, or in a store that is removed again.
"""
