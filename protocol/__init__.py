"""Bytes and text in, frozen values out: nothing here does input or output."""
