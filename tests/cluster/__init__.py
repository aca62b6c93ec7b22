"""Tests of exports on the workers of an executor."""
