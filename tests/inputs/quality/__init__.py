"""Tests of what tells weather from other numbers."""
