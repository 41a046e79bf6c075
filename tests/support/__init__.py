"""What tests with real processes share: starting parts on free ports, waiting, and leaving nothing behind."""
