"""Data: where records come from (open.py is the door), and how databases are made (sets.py, write.py)."""
