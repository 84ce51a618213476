"""Programs that mix samples, each beside a sound twin."""
