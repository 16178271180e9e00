"""What tests share. Children import parts of it too, so this module imports nothing."""
