"""The local page: drop a score, and finish it in the browser. An extra: `pip install 'musicgen[serve]'`.

`server.serve` runs it. Nothing here is imported by the command line before `musicgen serve` is asked for.
"""
