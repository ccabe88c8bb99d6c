"""Programs for the shipped profiles, and what loads them; load.py runs by itself too."""
