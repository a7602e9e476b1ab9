"""Tests of `cluster`, on real Ray heads of this machine."""
