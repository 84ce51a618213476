"""How many bytes are live when: read off the graphs, before anything runs."""
