"""Out only: pictures of scores. Heavy imports stay inside the functions."""
