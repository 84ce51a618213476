"""Building graphs."""
